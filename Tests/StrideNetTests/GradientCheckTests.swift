import Testing

import StrideNet

@Suite struct GradientCheckTests {
  @Test(arguments: [
    "conv(4,3) maxpool(2) flatten relu(10) softmax(10)",
    "conv(4,3,padding=same,stride=2,activation=none) batchnorm(activation=relu) avgpool(2) flatten dense(5)",
    "conv(4,3,groups=2,activation=gelu) layernorm dropout(0.3) globalavgpool softmax(3)",
    "residual(conv(4,3,padding=1,activation=sigmoid) conv(2,3,padding=1,activation=none)) maxpool(3,1) activation(tanh)",
  ])
  func theLibrarysLayersPass(text: String) throws {
    for seed in 1...3 as ClosedRange<UInt64> {
      let check = try GradientCheck(
        try Architecture.layers(text), input: Shape(8, 7, 2), seed: seed,
        runtime: Runtime(threads: 2))
      #expect(check.passed, "\(check.rows.filter { !$0.passed })")
      #expect(check.rows.count >= 4)
      #expect(check.rows.count { $0.checked > $0.corners } > check.rows.count * 3 / 4)
    }
  }

  /// Corners and sharp bends close by aren't mistakes.
  @Test(arguments: [
    "residual(conv(2,3,padding=1,activation=none) batchnorm(activation=relu) conv(2,3,padding=1,activation=none) batchnorm)",
    "residual(batchnorm(activation=relu) conv(2,3,padding=1,activation=none) batchnorm(activation=relu) conv(2,3,padding=1))",
    "residual(conv(2,3,padding=1) layernorm batchnorm(activation=elu) | conv(2,1,activation=none) batchnorm) layernorm",
  ])
  func residualsWithNormalization(text: String) throws {
    for seed in 1...20 as ClosedRange<UInt64> {
      for input in [Shape(12, 11, 2), Shape(5, 5, 2)] {
        let check = try GradientCheck(try Architecture.layers(text), input: input, seed: seed)
        #expect(check.passed, "seed \(seed), \(check.rows.filter { !$0.passed })")
      }
    }
  }

  @Test(arguments: Mutant.Mistake.allCases) func everyMutantIsCaught(mistake: Mutant.Mistake) throws
  {
    for seed in 1...3 as ClosedRange<UInt64> {
      let check = try GradientCheck([Mutant(mistake)], input: Shape(8, 8, 2), seed: seed)
      #expect(!check.passed, "\(mistake), seed \(seed)")
    }
  }

  @Test func onTheCommandLine() throws {
    let place = try Workplace()
    try place.writeWeights("w", "conv(3,3) flatten softmax(10)")
    for arguments in [["w"], ["--layers", "conv(3,3) flatten softmax(4)", "--input", "6x7x2"]] {
      let end = try place.run(["gradcheck"] + arguments)
      #expect(end.code == 0 && end.out.contains("ok ") && !end.out.contains("WRONG"), "\(end.out)")
    }
    let caught = try place.run("gradcheck", "--mutant", "bias-in-the-loop", "--json")
    #expect(caught.code == 65 && caught.err.contains("bias"), "\(caught.err)")
    #expect(caught.json.contains { $0["passed"] as? Bool == false })
    for (arguments, what) in [
      (["--mutant", "none"], "no mutant"), (["--input", "0x2x2"], "no size"),
      (["nothing"], "no such file"),
      (["cnn", "--mutant", "max-ties"], "more than one"),
      (["--layers", "conv(3,9)", "--input", "4x4x1"], "larger"),
      (["--layers", "flatten"], "computes nothing"),
    ] {
      let end = try place.run(["gradcheck"] + arguments)
      #expect(end.code != 0 && !end.wasKilled && end.err.contains(what), "\(end.err)")
    }
  }
}
