import StrideNet

/// Pictures of one size in rows, on dark paper.
enum ContactSheet {
  /// - Parameters:
  ///   - isFirstApart: whether the first of each row stands apart
  ///   - zoom: how many pixels become of one
  static func picture(_ rows: [[Picture]], isFirstApart: Bool = false, zoom: Int = 3) -> Picture {
    let gap = 2
    let (h, w) = (rows[0][0].height, rows[0][0].width)
    let channels = rows[0][0].channels
    let c = channels == 3 ? 3 : 1
    let apart = isFirstApart ? gap : 0
    let (high, wide) = (
      rows.count * (h + gap) - gap, rows.map(\.count).max()! * (w + gap) - gap + apart
    )
    var sheet = [UInt8](repeating: 64, count: high * wide * c)
    for (row, images) in rows.enumerated() {
      for (column, image) in images.enumerated() {
        let left = column * (w + gap) + (column > 0 ? apart : 0)
        for y in 0..<h {
          for x in 0..<w * c {
            sheet[((row * (h + gap) + y) * wide + left) * c + x] =
              image.pixels[y * w * channels + x * channels / c]
          }
        }
      }
    }
    var large = [UInt8](repeating: 0, count: sheet.count * zoom * zoom)
    for y in 0..<high * zoom {
      for x in 0..<wide * zoom {
        for k in 0..<c {
          large[(y * wide * zoom + x) * c + k] = sheet[(y / zoom * wide + x / zoom) * c + k]
        }
      }
    }
    return Picture(height: high * zoom, width: wide * zoom, channels: c, pixels: large)
  }
}
