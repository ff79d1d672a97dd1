import StrideNet

/// What the text and the pictures of `stridenet explain conv` say in the same words.
extension ConvolutionWalk {
  /// How many groups are shown: all where these and their windows are still a picture.
  var shown: Int {
    groups.count <= 9 && max(input.height, input.width) <= ConvolutionPicture.largest
      ? groups.count : min(groups.count, 4)
  }

  /// "1, 3, 9, 11", or the first few and "…".
  func list(_ element: Int, _ group: Int, first count: Int) -> String {
    let rest = groups[group].count > count ? ", …" : ""
    return met(by: element, in: group, first: count).map(String.init).joined(separator: ", ") + rest
  }

  var heading: String {
    func pair(_ size: Size) -> String {
      size.height == size.width ? "\(size.height)" : Self.text(size)
    }
    return
      "A \(Self.text(filter)) filter over a \(Self.text(input)) input, stride \(pair(stride)), "
      + (padding == (0, 0) ? "no padding" : "padding \(pair(padding))")
  }

  var summary: String {
    "\(Self.count(values.count, "position")) in \(Self.count(groups.count, "stride group"))"
  }

  /// "E + F + G + H"
  var sumOfProducts: String {
    let count = weights.count
    let letters = (count..<2 * count).map(Self.letter)
    return (count <= 9 ? letters : [letters[0], letters[1], "…", letters[count - 1]])
      .joined(separator: " + ")
  }

  /// What a kernel does, in a few words.
  func way(_ cost: Cost) -> String {
    switch cost.variant {
    case "naive": "window after window, sum after sum"
    case "stride_groups": "a pass and a matrix product for each group"
    case "im2col": "all windows copied, overlaps and all; one product"
    case "winograd" where isWinograd: "\(WinogradTile.products) products a tile of 2×2 outputs"
    case "winograd": "as direct: it is for 3×3 and a stride of 1"
    default:
      "windows are read where they lie"
        + (padding == (0, 0) ? "" : ", in a copy with the zeros")
    }
  }

  static func count(_ count: Int, _ what: String) -> String {
    "\(count.grouped) \(what)\(count == 1 ? "" : what.hasSuffix("s") ? "es" : "s")"
  }
}
