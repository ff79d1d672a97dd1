import Foundation
import Pages
import StrideNet

/// The results of a sweep, as a table and as a page.
enum SweepPage {
  private static func cells(_ results: [Sweep.Result], loss: String) -> [[String]] {
    let names = results.first?.choice.map(\.name) ?? []
    let good = results.filter { $0.failure == nil }
    let hasClasses = good.allSatisfy { $0.error != nil }
    let head =
      names + ["epochs", hasClasses ? "error" : "R²", loss]
      + (hasClasses ? ["training error"] : ["training \(loss)"]) + ["time"]
    let rows = good.map { result in
      result.choice.map(\.value) + [
        "\(result.epochs!)", hasClasses ? result.error!.percent() : r2(result),
        result.loss!.number(4),
        hasClasses ? result.train_error!.percent() : result.train_loss!.number(4),
        "\(result.seconds!.fixed(2)) s",
      ]
    }
    return [head] + rows
  }

  private static func r2(_ result: Sweep.Result) -> String {
    RegressionMetrics.r2(result.r2.map { Double($0) })
  }

  /// A row for each that didn't fail, the best first.
  static func table(_ results: [Sweep.Result], loss: String) -> [String] {
    let texts = Set((results.first?.choice ?? []).indices)
    return aligned(cells(results, loss: loss), textColumns: texts, indent: "")
  }

  /// - Parameter results: in the order in which they were trained
  static func text(_ results: [Sweep.Result], best: Sweep.Result?, loss: String) -> String {
    let sorted = results.enumerated().sorted {
      $0.element.isBetter(than: $1.element)
        || (!$1.element.isBetter(than: $0.element) && $0.offset < $1.offset)
    }.map(\.element)
    let good = sorted.filter { $0.failure == nil }
    let failed = results.filter { $0.failure != nil }
    let table = cells(sorted, loss: loss)
    let texts = results.first?.choice.count ?? 0
    func row(_ cells: [String], _ tag: String, line: String?) -> String {
      let all = cells.enumerated().map { column, cell in
        "<\(tag)\(column < texts ? " class=\"text\"" : "")>\(safe(cell))</\(tag)>"
      }.joined()
      return "<tr>\(all)"
        + (line.map {
          "<\(tag) class=\"text\">\(tag == "th" ? $0 : "<code>\(safe($0))</code>")</\(tag)>"
        }
          ?? "") + "</tr>\n"
    }
    let rows = zip(table.dropFirst(), good).map { row($0, "td", line: $1.line) }.joined()
    let plots = plots(good)
    let measure = best?.error == nil ? "R²" : "Error"
    return """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width, initial-scale=1">
      <title>StrideNet sweep</title>
      <style>
      \(Page.style)
      td { white-space: nowrap; }
      pre { white-space: pre-wrap; overflow-wrap: anywhere; }
      .plot { border-radius: 8px; overflow-x: auto; }
      .plot svg { display: block; }
      @media print { .plot svg { max-width: 100%; height: auto; } }
      </style>
      </head>
      <body>
      <header>
        <h1>StrideNet sweep</h1>
        <dl class="numbers">
          <div><dt>trainings</dt><dd>\(results.count)</dd></div>
          <div><dt>failed</dt><dd>\(failed.count)</dd></div>
          <div><dt>best</dt><dd>\(best?.text ?? "-")</dd></div>
        </dl>
      </header>
      <main>
      \(best.map { "<section><h2>The best</h2>\n<p class=\"soft\">By the images that were held out. The test set is measured by this line:</p>\n<pre>\(safe($0.line))</pre></section>" } ?? "")
      \(plots.isEmpty ? "" : "<section><h2>\(measure) by each option</h2><div class=\"plot\" tabindex=\"0\" role=\"region\" aria-label=\"\(measure) by each option\">\(Plot.svg(plots))</div></section>")
      <section><h2>All</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="All"><table>
      \(row(table[0], "th", line: "command"))\(rows)</table></div></section>
      \(failed.isEmpty ? "" : "<section><h2>Failed</h2><ul>\(failed.map { "<li><code>\(safe($0.line))</code><br>\(safe($0.failure!))</li>" }.joined(separator: "\n"))</ul></section>")
      </main>
      <footer>StrideNet \(Runtime.version)</footer>
      </body>
      </html>

      """
  }

  private static func safe(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
  }

  /// Of each option with numbers as values, the error over it.
  private static func plots(_ results: [Sweep.Result]) -> [Plot] {
    guard let first = results.first else { return [] }
    func height(_ result: Sweep.Result) -> Double {
      result.error.map { Double($0) * 100 } ?? max(0, Double(result.r2 ?? 0))
    }
    let epochs = Set(results.map { $0.epochs! }).sorted()
    return first.choice.indices.compactMap { index -> Plot? in
      let values = results.compactMap { Double($0.choice[index].value) }
      let (low, high) = (values.min() ?? 0, values.max() ?? 0)
      guard values.count == results.count, low < high else { return nil }
      let title = first.choice[index].name
      let isLogarithmic = low > 0 && high / low >= 8
      var plot = Plot(
        title: title,
        subtitle: epochs.count > 1
          ? zip("●■▲◆", epochs.suffix(4)).map { "\($0) \($1) epoch\($1 == 1 ? "" : "s")" }
            .joined(separator: ", ")
          : "each dot a training",
        x: isLogarithmic ? .logarithmic(title, values) : .linear(title, values),
        y: .linear(first.error == nil ? "R²" : "error, %", results.map { max(0.01, height($0)) }))
      plot.dots = zip(results, values).map { result, value in
        let place = epochs.suffix(4).firstIndex(of: result.epochs!).map {
          $0 - max(0, epochs.count - 4)
        }
        return Plot.Dot(
          x: value, y: height(result), colour: Plot.palette[2],
          marker: Plot.Marker.allCases[place ?? 0],
          title: safe(result.line))
      }
      return plot
    }
  }
}
