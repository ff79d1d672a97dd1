import StrideNetCore

/// A C program in the making. Indices have the names of the formulas: p and q for output rows and
/// columns, i and j for those of a window, c for channels, f for filters; k counts the values of a
/// row, v the fours of a block of filters.
struct CProgram {
  struct Constant {
    let name: String
    let sizes: [Int]
    let values: [Float]

    var declaration: String { name + sizes.map { "[\($0)]" }.joined() }

    /// The numbers, in as many braces as there are sizes, in lines of at most 100 characters. The
    /// shortest decimal that reads back as the same float is what Swift prints.
    func initializer() -> [UInt8] {
      var out: [UInt8] = []
      var column = 0
      func add(_ text: String) {
        if column + text.utf8.count > 99 {
          out.append(UInt8(ascii: "\n"))
          column = 0
        }
        out += text.utf8
        column += text.utf8.count
      }
      func fill(_ level: Int, _ range: Range<Int>) {
        guard level < sizes.count else { return add("\(values[range.lowerBound])f") }
        add("{")
        let step = range.count / sizes[level]
        for start in stride(from: range.lowerBound, to: range.upperBound, by: step) {
          if start > range.lowerBound { add(",") }
          fill(level + 1, start..<start + step)
        }
        add("}")
      }
      fill(0, 0..<values.count)
      out += ";\n".utf8
      return out
    }
  }

  /// A layer's output: an array [rows][columns][channels], or [values] where it is flat.
  struct Value {
    let name: String
    let shape: Shape
    let isFlat: Bool
    /// Where it lies; nil for the image, which is the caller's.
    let place: Int?
    /// Whether many of its values are likely to be 0.
    var hasZeros = false
    /// One of its values.
    var element: String { name + (isFlat ? "[c]" : "[p][q][c]") }
    /// The array it lies in.
    var array: String { place.map { "@\($0)@" } ?? "image" }
    var row: String { "[\(shape.width)][\(shape.channels)]" }
  }

  /// Memory of a value from the step that writes it to the last one that reads it.
  private struct Place {
    let count: Int
    let first: Int
    var last: Int
  }

  /// What the array is called that the result goes to.
  let result: String
  /// What names of arrays begin with that the linker sees.
  private let prefix: String
  private(set) var constants: [Constant] = []
  private(set) var functions: [(name: String, text: String)] = []
  private var lines: [String] = []
  private var views: Set<String> = []
  private var places: [Place] = []
  private var step = 0
  /// Places that are read once more by layers around those at work.
  private var kept: [Int] = []
  /// The most that a list of values that aren't 0 takes: values, pixels, and values of one row.
  private var listed = (values: 0, pixels: 0, row: 0)
  private var slots: (sizes: [Int], ofPlaces: [Int]) = ([], [])

  init(
    _ stages: [Stage], _ normalization: InputNormalization?, _ targets: TargetNormalization?,
    prefix: String, result: String
  ) throws {
    (self.prefix, self.result) = (prefix, result)
    let input = stages[0].input
    let isFlat = input.height == 1 && input.width == 1
    let image = Value(name: isFlat ? "image" : "x0", shape: input, isFlat: isFlat, place: nil)
    let last = try layers(stages, normalization.map { normalized(image, $0) } ?? image)
    next(reading: last)
    let loop = "for (int i = 0; i < \(last.shape.count); i++)\n  \(result)[i] = \(last.array)[i]"
    if let targets {
      let count = last.shape.count
      let deviation = constant("output_deviation", [count], targets.deviation.map { Float($0) })
      let mean = constant("output_mean", [count], targets.mean.map { Float($0) })
      code("\n/* The result, in its own units. */")
      code("\(loop) * \(deviation)[i] + \(mean)[i];")
    } else {
      code("\n/* The result. */")
      code("\(loop);")
    }
    slots = assignedSlots()
  }

  private mutating func normalized(_ image: Value, _ factors: InputNormalization) -> Value {
    next(reading: image)
    let x = image.isFlat ? image : self.image(image)
    let scale = constant("input_scale", [factors.scale.count], factors.scale)
    let shift = constant("input_shift", [factors.shift.count], factors.shift)
    let y = buffer("_input", image.shape, isFlat: image.isFlat)
    code("\n/* The pixels, less their channel's mean, divided by its deviation. */")
    code(loops(y, "\(y.element) = \(x.element) * \(scale)[c] + \(shift)[c];"))
    return y
  }

  // MARK: Text

  mutating func code(_ text: String) {
    for part in text.split(separator: "\n", omittingEmptySubsequences: false) {
      lines.append(part.isEmpty ? "" : "  \(part)")
    }
  }

  /// The statements of predict.
  var body: String {
    var text = lines.drop { $0.isEmpty }.joined(separator: "\n")
    for (place, slot) in slots.ofPlaces.enumerated() {
      text = text.replacing("@\(place)@", with: "memory\(slot + 1)")
    }
    return text
  }

  /// An array of weights; what it is called.
  mutating func constant(_ name: String, _ sizes: [Int], _ values: [Float]) -> String {
    let name = "\(prefix)_\(name)"
    constants.append(Constant(name: name, sizes: sizes, values: values))
    return name
  }

  mutating func function(_ name: String, _ text: String) {
    if !functions.contains(where: { $0.name == name }) { functions.append((name, text)) }
  }

  // MARK: Memory

  /// A step begins, which reads the values.
  mutating func next(reading values: Value...) {
    step += 1
    for place in values.compactMap(\.place) { places[place].last = step }
  }

  mutating func buffer(_ name: String, _ shape: Shape, isFlat: Bool) -> Value {
    places.append(Place(count: shape.count, first: step, last: step))
    let value = Value(
      name: "x" + name, shape: shape, isFlat: isFlat, place: places.count - 1)
    declare(value)
    return value
  }

  /// A value's own memory for what is made of it one by one, or new memory if it is read again.
  mutating func inPlace(_ x: Value, _ name: String) -> Value {
    if let place = x.place, !kept.contains(place) { return x }
    return buffer(name, x.shape, isFlat: x.isFlat)
  }

  /// What `body` makes, while `value` is left as it is.
  mutating func keeping<Result>(
    _ value: Value, _ body: (inout CProgram) throws -> Result
  ) rethrows -> Result {
    kept += [value.place].compactMap(\.self)
    defer { if value.place != nil { kept.removeLast() } }
    return try body(&self)
  }

  private mutating func declare(_ value: Value) {
    guard views.insert(value.name).inserted else { return }
    let constant = value.place == nil ? "const " : ""
    code(
      value.isFlat
        ? "\(constant)float *\(value.name) = \(value.array);"
        : "\(constant)float (*\(value.name))\(value.row) = "
          + "(\(constant)float (*)\(value.row))\(value.array);")
  }

  /// The same memory as one row of values.
  mutating func flat(_ value: Value) -> Value {
    if value.isFlat { return value }
    let view = Value(
      name: value.place == nil ? "image" : "\(value.name)_flat", shape: Shape(value.shape.count),
      isFlat: true, place: value.place, hasZeros: value.hasZeros)
    if value.place != nil { declare(view) }
    return view
  }

  /// The same memory as rows of pixels of channels.
  mutating func image(_ value: Value) -> Value {
    let view = Value(
      name: value.isFlat ? "\(value.name)_image" : value.name, shape: value.shape, isFlat: false,
      place: value.place, hasZeros: value.hasZeros)
    declare(view)
    return view
  }

  /// Adds what finds parts of an image that are 0.
  mutating func isZero() {
    function(
      "isZero",
      """
      /* Whether an image is 0 in so many rows from top and so many values of each from left on. */
      static int isZero(const float *x, int height, int width, int top, int left, int rows,
                        int values) {
        for (int i = top < 0 ? 0 : top; i < top + rows && i < height; i++)
          for (int k = left < 0 ? 0 : left; k < left + values && k < width; k++)
            if (x[i * width + k] != 0)
              return 0;
        return 1;
      }
      """)
  }

  /// Adds what lists values that aren't 0, and memory for lists of so many rows.
  mutating func lists(rows: Int, pixels: Int, channels: Int) {
    listed.values = max(listed.values, rows * pixels * channels)
    listed.pixels = max(listed.pixels, rows * (pixels + 1))
    listed.row = max(listed.row, pixels * channels)
    function(
      "list",
      """
      /* Lists where the values of a row are that aren't 0, and where each pixel's begin. */
      static void list(const float *row, int pixels, int channels, place *at, int *first) {
        int n = 0, k = 0;
        for (int q = 0; q < pixels; q++) {
          first[q] = n;
          for (int c = 0; c < channels; c++, k++) {
            at[n] = (place)k; /* the next is written over it if this one is 0 */
            n += !(row[k] <= 0); /* relu leaves none below 0 */
          }
        }
        first[pixels] = n;
      }
      """)
  }

  private var isLong: Bool { listed.row > 65_536 }

  /// Gives each place one of a few arrays, none to two at a time: the smallest that is free and
  /// large enough, or else the largest that is free, which grows.
  private func assignedSlots() -> (sizes: [Int], ofPlaces: [Int]) {
    var (sizes, ends, chosen) = ([Int](), [Int](), [Int]())
    for place in places {
      let free = sizes.indices.filter { ends[$0] < place.first }
      let fitting = free.filter { sizes[$0] >= place.count }
      if let slot = fitting.min(by: { sizes[$0] < sizes[$1] })
        ?? free.max(by: { sizes[$0] < sizes[$1] })
      {
        sizes[slot] = max(sizes[slot], place.count)
        ends[slot] = place.last
        chosen.append(slot)
      } else {
        chosen.append(sizes.count)
        sizes.append(place.count)
        ends.append(place.last)
      }
    }
    return (sizes, chosen)
  }

  var weightBytes: Int { constants.reduce(0) { $0 + 4 * $1.values.count } }
  var memoryBytes: Int {
    slots.sizes.reduce(0) { $0 + 4 * $1 } + listed.values * (isLong ? 4 : 2) + 4 * listed.pixels
  }

  /// The static arrays.
  var memory: String {
    var text = slots.sizes.isEmpty ? "" : "/* The outputs of layers, which take turns. */\n"
    for (index, size) in slots.sizes.enumerated() {
      text += "static float memory\(index + 1)[\(size)];\n"
    }
    if listed.values > 0 {
      text += """

        /* Places in a row of the values that aren't 0, and where each pixel's begin among them. */
        typedef unsigned \(isLong ? "int" : "short") place;
        static place at[\(listed.values)];
        static int first[\(listed.pixels)];

        """
    }
    return text.isEmpty ? "" : text + "\n"
  }

  // MARK: Loops

  /// `body` for every value, or with `pixels` for every pixel.
  func loops(_ value: Value, pixels: Bool = false, _ body: String) -> String {
    let channels = pixels ? [] : [("c", value.shape.channels)]
    let all =
      (value.isFlat ? [] : [("p", value.shape.height), ("q", value.shape.width)]) + channels
    return Self.loops(all, body)
  }

  static func loops(_ all: [(name: String, count: Int)], _ body: String) -> String {
    var result = ""
    for (depth, index) in all.enumerated() {
      let space = String(repeating: "  ", count: depth)
      result +=
        "\(space)for (int \(index.name) = 0; \(index.name) < \(index.count); \(index.name)++)\n"
    }
    let isBlock = body.hasPrefix("{\n")
    if isBlock && !all.isEmpty { result = result.dropLast() + " " }
    let space = String(repeating: "  ", count: isBlock ? max(0, all.count - 1) : all.count)
    let lines = body.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    return result
      + lines.map { $0 == 0 && isBlock ? "\($1)" : "\(space)\($1)" }.joined(separator: "\n")
  }

  /// Broken into lines of at most 96 characters, those after the first indented.
  static func wrapped(_ text: String, indent: String) -> String {
    var (lines, line) = ([String](), "")
    for word in text.split(separator: " ") {
      if !line.isEmpty && line.count + 1 + word.count > 96 - indent.count {
        lines.append(line)
        line = ""
      }
      line += (line.isEmpty ? "" : " ") + word
    }
    return (lines + [line]).joined(separator: "\n\(indent)")
  }

  static func product(_ index: String, _ factor: Int) -> String {
    factor == 1 ? index : "\(index) * \(factor)"
  }

  static func indented(_ text: String, by depth: Int = 1) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false)
      .map { $0.isEmpty ? "" : String(repeating: "  ", count: depth) + $0 }
      .joined(separator: "\n")
  }
}
