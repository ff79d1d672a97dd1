/// The one thing that is wanted of what cameras write beside a picture: which way up it is.
enum EXIF {
  /// 1…8; 1 where the file says nothing that can be read.
  static func orientation(of file: PictureFile) -> Int {
    let block: ArraySlice<UInt8>? =
      switch file.kind {
      case .jpeg: jpeg(file.bytes)
      case .png: chunk("eXIf", in: file.bytes, from: 8, isPNG: true)
      case .webp: chunk("EXIF", in: file.bytes, from: 12, isPNG: false)
      case .bmp, .ppm: nil
      }
    return block.flatMap { orientation(Array($0)) } ?? 1
  }

  private static func number(_ bytes: [UInt8], _ place: Int, _ count: Int, big: Bool) -> Int? {
    guard place >= 0, place + count <= bytes.count else { return nil }
    let part = bytes[place..<place + count]
    return (big ? Array(part) : part.reversed()).reduce(0) { $0 << 8 | Int($1) }
  }

  /// The segment that begins with "Exif", before the pixels.
  private static func jpeg(_ bytes: [UInt8]) -> ArraySlice<UInt8>? {
    var place = 2
    while let marker = number(bytes, place, 2, big: true), marker >> 8 == 0xff, marker != 0xffda,
      let length = number(bytes, place + 2, 2, big: true), length >= 2
    {
      let end = min(bytes.count, place + 2 + length)
      if marker == 0xffe1 && bytes[(place + 4)...].starts(with: Array("Exif\0\0".utf8)) {
        return bytes[min(end, place + 10)..<end]
      }
      place = end
    }
    return nil
  }

  /// A chunk of a file that is made of such.
  private static func chunk(
    _ name: String, in bytes: [UInt8], from start: Int, isPNG: Bool
  ) -> ArraySlice<UInt8>? {
    var place = start
    while let length = number(bytes, isPNG ? place : place + 4, 4, big: isPNG),
      place + 8 + length <= bytes.count
    {
      if bytes[(isPNG ? place + 4 : place)...].starts(with: name.utf8) {
        let content = bytes[place + 8..<place + 8 + length]
        return content.starts(with: Array("Exif\0\0".utf8)) ? content.dropFirst(6) : content
      }
      // A checksum follows in one kind, a byte to make it even in the other.
      place += 8 + length + (isPNG ? 4 : length & 1)
    }
    return nil
  }

  /// Of a block as TIFF has it: in its first directory, entry 0x0112.
  private static func orientation(_ block: [UInt8]) -> Int? {
    let big = block.starts(with: "MM".utf8)
    guard big || block.starts(with: "II".utf8), let start = number(block, 4, 4, big: big),
      let count = number(block, start, 2, big: big)
    else { return nil }
    for entry in 0..<count {
      let place = start + 2 + 12 * entry
      guard let tag = number(block, place, 2, big: big) else { return nil }
      if tag == 0x0112, let value = number(block, place + 8, 2, big: big) {
        return (1...8).contains(value) ? value : nil
      }
    }
    return nil
  }
}
