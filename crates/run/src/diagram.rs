//! Boxes and arrows as an SVG file.

use maud::{Markup, html};

/// A box with lines of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Left edge, top edge, width and height.
    pub place: [f64; 4],
    /// The lines of text; the first is bold.
    pub lines: Vec<String>,
    /// The colour of the edge, by its place in the palette of the charts.
    pub color: usize,
}

/// A diagram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagram {
    /// Width and height.
    pub size: [f64; 2],
    /// The boxes.
    pub cards: Vec<Card>,
    /// The arrows, each a line through points.
    pub arrows: Vec<Vec<[f64; 2]>>,
    /// Text beside arrows, with the places where it begins.
    pub notes: Vec<([f64; 2], String)>,
}

impl Card {
    /// The middle of the upper edge.
    pub fn top(&self) -> [f64; 2] {
        let [x, y, width, _] = self.place;
        [x + width / 2.0, y]
    }

    /// The middle of the lower edge.
    pub fn bottom(&self) -> [f64; 2] {
        let [x, y, width, height] = self.place;
        [x + width / 2.0, y + height]
    }
}

/// Height of a line of text.
const LINE: f64 = 18.0;

/// Draws a diagram and returns the SVG.
pub fn diagram(diagram: &Diagram) -> String {
    let [width, height] = diagram.size;
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (width) " " (height) }
            width=(width) height=(height) fill="#222"
            font-family="system-ui, sans-serif" font-size="14" {
            defs {
                marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
                    orient="auto" markerUnits="userSpaceOnUse" { path d="M0 0L8 4L0 8Z" fill="#555" {} }
            }
            rect width="100%" height="100%" fill="white" {}
            @for points in &diagram.arrows {
                path d=(path(points)) fill="none" stroke="#555" stroke-width="1.5"
                    marker-end="url(#tip)" {}
            }
            @for card in &diagram.cards { (drawing(card)) }
            @for ([x, y], text) in &diagram.notes {
                text x=(x) y=(y) font-size="13" fill="#444" { (text) }
            }
        }
    };
    svg.into_string()
}

fn path(points: &[[f64; 2]]) -> String {
    let command = |i: usize| if i == 0 { 'M' } else { 'L' };
    points.iter().enumerate().map(|(i, [x, y])| format!("{}{x} {y}", command(i))).collect()
}

fn drawing(card: &Card) -> Markup {
    let [x, y, width, height] = card.place;
    let first = y + (height - LINE * card.lines.len() as f64) / 2.0 + 13.0;
    html! {
        rect x=(x) y=(y) width=(width) height=(height) rx="5" fill="#f6f6f6"
            stroke=(crate::chart::color(card.color)) stroke-width="1.5" {}
        @for (i, line) in card.lines.iter().enumerate() {
            text x=(x + width / 2.0) y=(first + LINE * i as f64) text-anchor="middle"
                font-weight=[(i == 0).then_some("600")] { (line) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_runs_from_edge_to_edge_and_texts_are_escaped() {
        let card = |y: f64, text: &str| Card {
            place: [10.0, y, 100.0, 40.0],
            lines: vec![text.to_owned()],
            color: 0,
        };
        let (a, b) = (card(0.0, "a & b"), card(60.0, "c"));
        let arrow = vec![a.bottom(), b.top()];
        let svg = diagram(&Diagram {
            size: [120.0, 100.0],
            cards: vec![a, b],
            arrows: vec![arrow],
            notes: vec![([0.0, 0.0], "<n>".to_owned())],
        });
        assert!(svg.contains("d=\"M60 40L60 60\""), "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;n&gt;"), "{svg}");
    }
}
