// SPDX-License-Identifier: MIT
// The whole training of a convolutional network, to be read from top to bottom: arrays, loops, and
// the convolution and the pooling as they are defined (conv_naive.c and pool_naive.c, loops in C).
// The library is asked for the digits and for random numbers, for nothing else. Its network `cnn`,
// conv(32,3) maxpool(2) flatten relu(100) softmax(10), computes the same, up to rounding.
//
//     swift run -c release Plain [digits] [seed]
import CKernels
import Foundation
import StrideNet

let arguments = Array(CommandLine.arguments.dropFirst())
let digits = arguments.count > 0 ? Int(arguments[0]) ?? 2000 : 2000
let seed = arguments.count > 1 ? UInt64(arguments[1]) ?? 1 : 1

let batchSize = 64  // images in a mini-batch
let learningRate: Float = 0.05
let momentum: Float = 0.9

// ---- The digits ---------------------------------------------------------------------------------

// Images of 28×28 bytes, one after the other, row by row, and for each the digit that it shows.
let data = try Dataset.load("sample")
let train = try data.limited(to: digits).train
let test = data.test.prefix(1000)
let size = 28
let classes = 10

// ---- The layers ---------------------------------------------------------------------------------

// In each array the last index runs fastest: x (N,K) holds x[n,k] at n · K + k. dy is short for
// dL/dy, the derivative of the loss for each element of y. A layer is handed dy by the layer behind
// it and owes two things: dL/dw for its own weights, dL/dx for the layer before it. The chain rule
// gives both: strike out of the formula what the derivative is for, put dy in y's place, and sum
// over all places where it stands.
typealias Floats = UnsafePointer<Float>
typealias MutableFloats = UnsafeMutablePointer<Float>

// Dense: y[n,o] = b[o] + Σ k  x[n,k] · w[o,k]
// with N images, K inputs, O outputs: x (N,K), w (O,K), b (O), y (N,O).
func denseForward(
  _ images: Int, _ inputs: Int, _ outputs: Int, _ x: Floats, _ w: Floats, _ b: Floats,
  _ y: MutableFloats
) {
  for n in 0..<images {
    for o in 0..<outputs {
      var sum = b[o]
      for k in 0..<inputs { sum += x[n * inputs + k] * w[o * inputs + k] }
      y[n * outputs + o] = sum
    }
  }
}

// dx[n,k] = Σ o  dy[n,o] · w[o,k]
func denseInputGradient(
  _ images: Int, _ inputs: Int, _ outputs: Int, _ dy: Floats, _ w: Floats, _ dx: MutableFloats
) {
  for n in 0..<images {
    for k in 0..<inputs { dx[n * inputs + k] = 0 }
    for o in 0..<outputs {
      let slope = dy[n * outputs + o]
      for k in 0..<inputs { dx[n * inputs + k] += slope * w[o * inputs + k] }
    }
  }
}

// dw[o,k] = Σ n  dy[n,o] · x[n,k]: each image adds its part.
func denseWeightGradient(
  _ images: Int, _ inputs: Int, _ outputs: Int, _ x: Floats, _ dy: Floats, _ dw: MutableFloats
) {
  for o in 0..<outputs {
    for k in 0..<inputs { dw[o * inputs + k] = 0 }
    for n in 0..<images {
      let slope = dy[n * outputs + o]
      for k in 0..<inputs { dw[o * inputs + k] += slope * x[n * inputs + k] }
    }
  }
}

// A bias is added to its output in every row (of an image, or of a place in an image), so its
// derivative is the sum over all rows: db[o] = Σ r  dy[r,o].
func biasGradient(_ rows: Int, _ outputs: Int, _ dy: Floats, _ db: MutableFloats) {
  for o in 0..<outputs { db[o] = 0 }
  for r in 0..<rows {
    for o in 0..<outputs { db[o] += dy[r * outputs + o] }
  }
}

// ReLU: y = max(x, 0), in place.
func reluForward(_ count: Int, _ y: MutableFloats) {
  for i in 0..<count { y[i] = max(y[i], 0) }
}

// Its slope is 1 where y > 0, else 0: there the derivative ends.
func reluBackward(_ count: Int, _ y: Floats, _ dy: MutableFloats) {
  for i in 0..<count where y[i] <= 0 { dy[i] = 0 }
}

// Softmax makes probabilities of the outputs z of the last layer, the logits:
// p[n,c] = exp(z[n,c]) / Σ c'  exp(z[n,c']).  The loss is the cross-entropy, minus the logarithm of
// the probability of the right class, as a mean over the mini-batch. With both together,
//
//     dL/dz[n,c] = (p[n,c] − 1 if c is the label) / N.
//
// The largest logit is taken off all of them first: p stays the same, and exp can't overflow.
// z, dz (N,C); returns the loss.
func softmaxCrossEntropy(
  _ images: Int, _ classes: Int, _ z: Floats, _ labels: UnsafePointer<UInt16>, _ dz: MutableFloats
) -> Float {
  var loss: Float = 0
  for n in 0..<images {
    let row = n * classes
    let label = Int(labels[n])
    var largest = z[row]
    for c in 0..<classes { largest = max(largest, z[row + c]) }
    var sum: Float = 0
    for c in 0..<classes { sum += exp(z[row + c] - largest) }
    for c in 0..<classes {
      let probability = exp(z[row + c] - largest) / sum
      dz[row + c] = (probability - (c == label ? 1 : 0)) / Float(images)
    }
    // −log p, written so that a probability that rounds to 0 does no harm.
    loss += log(sum) - (z[row + label] - largest)
  }
  return loss / Float(images)
}

// Stochastic gradient descent with momentum: v = momentum · v + dw; w = w − rate · v.
func descend(
  _ count: Int, _ rate: Float, _ momentum: Float, _ dw: Floats, _ v: MutableFloats,
  _ w: MutableFloats
) {
  for i in 0..<count {
    v[i] = momentum * v[i] + dw[i]
    w[i] -= rate * v[i]
  }
}

// ---- The weights --------------------------------------------------------------------------------

// Weights start at random in ±√(6 / fan-in) before ReLU (He), in ±√(6 / (fan-in + fan-out)) before
// softmax (Glorot): fan-in is how many inputs an output sums over, fan-out how many outputs an input
// goes into. The numbers then neither grow nor shrink much from layer to layer. Biases start at 0.
// The library draws the same numbers for the same seed.
var random = SeededGenerator(seed: seed, stream: 1)
func draw(_ count: Int, _ bound: Float, _ random: inout SeededGenerator) -> [Float] {
  (0..<count).map { _ in (2 * random.uniform() - 1) * bound }
}
func zeros(_ count: Int) -> [Float] { [Float](repeating: 0, count: count) }

let filters = 32
let side = size - 3 + 1  // 26: a window of 3 stops at so many places of 28
let half = side / 2  // 13: windows of 2 side by side
let flat = half * half * filters  // 5408: what the first dense layer sees of an image
let hidden = 100

var convW = draw(3 * 3 * 1 * filters, (6 / Float(3 * 3 * 1)).squareRoot(), &random)  // (3,3,1,32)
var convB = zeros(filters)
var hiddenW = draw(hidden * flat, (6 / Float(flat)).squareRoot(), &random)  // (100,5408)
var hiddenB = zeros(hidden)
var lastW = draw(classes * hidden, (6 / Float(hidden + classes)).squareRoot(), &random)  // (10,100)
var lastB = zeros(classes)

// For each of them its derivative, and its velocity for the momentum.
var (dConvW, dConvB) = (zeros(convW.count), zeros(convB.count))
var (dHiddenW, dHiddenB) = (zeros(hiddenW.count), zeros(hiddenB.count))
var (dLastW, dLastB) = (zeros(lastW.count), zeros(lastB.count))
var (vConvW, vConvB) = (zeros(convW.count), zeros(convB.count))
var (vHiddenW, vHiddenB) = (zeros(hiddenW.count), zeros(hiddenB.count))
var (vLastW, vLastB) = (zeros(lastW.count), zeros(lastB.count))

// What each layer makes of a mini-batch, and the derivatives for it.
var x = zeros(batchSize * size * size)  // (N,28,28,1)
var conv = zeros(batchSize * side * side * filters)  // (N,26,26,32)
var pooled = zeros(batchSize * flat)  // (N,13,13,32), which is (N,5408) to the dense layer
var places = [UInt16](repeating: 0, count: pooled.count)  // where in its window each largest stood
var relu = zeros(batchSize * hidden)  // (N,100)
var logits = zeros(batchSize * classes)  // (N,10)
var (dConv, dPooled) = (zeros(conv.count), zeros(pooled.count))
var (dRelu, dLogits) = (zeros(relu.count), zeros(logits.count))

// The sizes as the kernels take them; n is filled in for each mini-batch. f is for filter and its
// window, s for stride, p for padding (none), o for output, d for dilation (none); c for channels, or,
// with h and w, padding that means count (none).
var convShape = ck_conv_shape(
  n: 0, h: Int32(size), w: Int32(size), c: 1, fh: 3, fw: 3, f: Int32(filters), sh: 1, sw: 1,
  ph: 0, pw: 0, oh: Int32(side), ow: Int32(side), dh: 1, dw: 1, groups: 1)
var poolShape = ck_pool_shape(
  n: 0, h: Int32(side), w: Int32(side), c: Int32(filters), fh: 2, fw: 2, sh: 2, sw: 2,
  oh: Int32(half), ow: Int32(half), ph: 0, pw: 0, ch: 0, cw: 0)

// ---- Training -----------------------------------------------------------------------------------

// One epoch: each digit is seen once. They come in the order of the file, where they are mixed, so
// nothing is shuffled here; of several epochs each should have an order of its own.
let clock = ContinuousClock()
let began = clock.now
var step = 0
for start in stride(from: 0, to: train.count, by: batchSize) {
  let n = min(batchSize, train.count - start)  // the last mini-batch has what is left
  (convShape.n, poolShape.n) = (Int32(n), Int32(n))
  // Bytes from 0 to 255 become numbers from 0 to 1.
  for (i, byte) in train.pixels[(start * size * size)...].prefix(n * size * size).enumerated() {
    x[i] = Float(byte) / 255
  }
  let labels = Array(train.labels[start..<start + n])

  // Forward, layer by layer. The convolution's kernel does its ReLU too (the 1), and needs no
  // workspace (nil).
  ck_conv_naive.forward(&convShape, x, convW, convB, 1, &conv, nil)
  ck_pool_naive.max_forward(&poolShape, conv, &pooled, &places)
  denseForward(n, flat, hidden, pooled, hiddenW, hiddenB, &relu)
  reluForward(n * hidden, &relu)
  denseForward(n, hidden, classes, relu, lastW, lastB, &logits)
  let loss = softmaxCrossEntropy(n, classes, logits, labels, &dLogits)
  step += 1
  if step <= 20 { print("step \(step): loss \(loss)") }

  // Backward, from the loss to the first layer; nobody asks for the derivatives of the pixels.
  denseWeightGradient(n, hidden, classes, relu, dLogits, &dLastW)
  biasGradient(n, classes, dLogits, &dLastB)
  denseInputGradient(n, hidden, classes, dLogits, lastW, &dRelu)

  reluBackward(n * hidden, relu, &dRelu)  // in place: from here on for what went into the ReLU
  denseWeightGradient(n, flat, hidden, pooled, dRelu, &dHiddenW)
  biasGradient(n, hidden, dRelu, &dHiddenB)
  denseInputGradient(n, flat, hidden, dRelu, hiddenW, &dPooled)

  // Only the largest of each window had any influence: it gets the derivative, the others 0.
  ck_pool_naive.max_backward(&poolShape, dPooled, places, &dConv)
  reluBackward(n * side * side * filters, conv, &dConv)
  ck_conv_naive.weight_gradient(&convShape, x, dConv, &dConvW, nil)
  biasGradient(n * side * side, filters, dConv, &dConvB)

  // A step downhill, once all derivatives are there.
  descend(convW.count, learningRate, momentum, dConvW, &vConvW, &convW)
  descend(convB.count, learningRate, momentum, dConvB, &vConvB, &convB)
  descend(hiddenW.count, learningRate, momentum, dHiddenW, &vHiddenW, &hiddenW)
  descend(hiddenB.count, learningRate, momentum, dHiddenB, &vHiddenB, &hiddenB)
  descend(lastW.count, learningRate, momentum, dLastW, &vLastW, &lastW)
  descend(lastB.count, learningRate, momentum, dLastB, &vLastB, &lastB)
}
let seconds = (clock.now - began) / .seconds(1)
print("one epoch of \(train.count) digits, \(Int(Double(train.count) / seconds)) images a second")

// ---- The test -----------------------------------------------------------------------------------

// The same way forward, over digits that the training hasn't seen. The largest logit is the answer:
// softmax doesn't change which it is.
var errors = 0
for start in stride(from: 0, to: test.count, by: batchSize) {
  let n = min(batchSize, test.count - start)
  (convShape.n, poolShape.n) = (Int32(n), Int32(n))
  for (i, byte) in test.pixels[(start * size * size)...].prefix(n * size * size).enumerated() {
    x[i] = Float(byte) / 255
  }
  ck_conv_naive.forward(&convShape, x, convW, convB, 1, &conv, nil)
  ck_pool_naive.max_forward(&poolShape, conv, &pooled, &places)
  denseForward(n, flat, hidden, pooled, hiddenW, hiddenB, &relu)
  reluForward(n * hidden, &relu)
  denseForward(n, hidden, classes, relu, lastW, lastB, &logits)
  for i in 0..<n {
    var answer = 0
    for c in 0..<classes where logits[i * classes + c] > logits[i * classes + answer] { answer = c }
    if answer != Int(test.labels[start + i]) { errors += 1 }
  }
}
print("class error on \(test.count) test digits: \(100 * Float(errors) / Float(test.count)) %")
