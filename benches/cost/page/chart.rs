//! The chart: each summarised measure as a row, each variant as a dot at its
//! ratio to native, on a logarithmic axis.

use std::fmt::Display;

use svg::Document;
use svg::node::element::{Circle, Group, Line, Style, Text, Title};

use super::{Column, Results, Spread, Variant};

/// The variants in the chart, with colours that people with colour blindness can
/// distinguish.
const SHOWN: [(Variant, &str, &str); 6] = [
    (Variant::Floor, "floor", "the floor"),
    (Variant::Warm, "warm", "sopin, warm store"),
    (Variant::Cold, "cold", "sopin, cold store"),
    (Variant::Memfd, "memfd", "sopin, memfd"),
    (Variant::Anonymous, "anonymous", "anonymous copies"),
    (Variant::Replaced, "replaced", "atomic replacement"),
];
const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.small { font-size: 11px; fill: #57606a; }
line { stroke: #d0d7de; }
.native { stroke: #24292f; }
.spread { stroke-width: 2; stroke-opacity: .45; }
.floor { fill: #6e7781; stroke: #6e7781; }
.warm { fill: #009e73; stroke: #009e73; }
.cold { fill: #56b4e9; stroke: #56b4e9; }
.memfd { fill: #0072b2; stroke: #0072b2; }
.anonymous { fill: #d55e00; stroke: #d55e00; }
.replaced { fill: #cc79a7; stroke: #cc79a7; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #8b949e; }
  line { stroke: #30363d; }
  .native { stroke: #e6edf3; }
}
";
const WIDTH: f64 = 900.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 870.0;
const TOP: f64 = 70.0;
const ROW: f64 = 40.0;
const LEAST: f64 = 0.9;

/// Renders `docs/benchmarks.svg`.
pub fn chart(results: &Results) -> String {
    let columns = results.sections.iter().flat_map(|section| &section.columns);
    let rows: Vec<(&str, &Column)> = columns.filter_map(|column| Some((column.summary.as_deref()?, column))).collect();
    let ratios = rows.iter().flat_map(|(_, column)| shown(column)).map(|(_, ratio)| ratio.high);
    let axis = Axis { most: ratios.fold(2.0, f64::max) * 1.1 };
    let bottom = rows.iter().fold(TOP, |y, _| y + ROW);
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, bottom + 30.0))
        .set("role", "img")
        .add(Title::new("Cost against the same work without sopin, by measure and alternative"))
        .add(Style::new(STYLE));
    document = document.add(legend()).add(axis.draw(bottom));
    let mut y = TOP + ROW / 2.0;
    for (name, column) in rows {
        document = document.add(text(LEFT - 14.0, y + 4.0, "end", name.replace('`', "")));
        for (place, (class, ratio)) in shown(column).enumerate() {
            // The dots lie side by side, so that equal ones do not hide each other.
            let y = y + 4.0 * (f64::from(u8::try_from(place).unwrap_or_default()) - 2.5);
            document = document.add(dot(&axis, y, class, ratio));
        }
        y += ROW;
    }
    format!("{document}\n")
}

/// Returns the class and ratio of each variant in a column.
fn shown(column: &Column) -> impl Iterator<Item = (&'static str, Spread)> {
    SHOWN.iter().filter_map(|(variant, class, _)| Some((*class, column.cells.get(variant)?.ratio)))
}

struct Axis {
    most: f64,
}

impl Axis {
    fn x(&self, ratio: f64) -> f64 {
        let part = (ratio.clamp(LEAST, self.most) / LEAST).ln() / (self.most / LEAST).ln();
        round(LEFT + part * (RIGHT - LEFT))
    }

    fn draw(&self, bottom: f64) -> Group {
        let mut group = Group::new();
        let ticks = [1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0];
        for tick in ticks.into_iter().filter(|tick| *tick <= self.most) {
            let x = self.x(tick);
            let line = Line::new().set("x1", x).set("x2", x).set("y1", TOP - 4.0).set("y2", bottom);
            group = group.add(if tick > 1.0 { line } else { line.set("class", "native") });
            let label = if tick > 1.0 { format!("{tick}×") } else { "native".to_owned() };
            group = group.add(text(x, bottom + 18.0, "middle", label).set("class", "small"));
        }
        group
    }
}

fn legend() -> Group {
    let mut group = Group::new();
    let mut x = 40.0;
    for (_, class, name) in SHOWN {
        group = group.add(Circle::new().set("cx", x).set("cy", 26.0).set("r", 5).set("class", class));
        group = group.add(text(x + 10.0, 30.0, "start", name));
        // Sans-serif text is about this wide.
        x += name.chars().fold(36.0, |width, _| width + 6.4);
    }
    group
}

/// Draws the median and the quartiles.
fn dot(axis: &Axis, y: f64, class: &str, ratio: Spread) -> Group {
    let (low, high) = (axis.x(ratio.low), axis.x(ratio.high));
    let line = Line::new().set("x1", low).set("x2", high).set("y1", y).set("y2", y);
    let circle = Circle::new().set("cx", axis.x(ratio.median)).set("cy", y).set("r", 4).set("class", class);
    Group::new().add(line.set("class", format!("spread {class}"))).add(circle)
}

fn text(x: f64, y: f64, anchor: &str, content: impl Display) -> Text {
    Text::new(content.to_string()).set("x", x).set("y", y).set("text-anchor", anchor)
}

/// Rounds to tenths of a pixel, which are exact enough and keep small changes small.
fn round(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}
