//! Curves as text.

/// A curve with a name: one number per step, epoch or update.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What is drawn.
    pub name: &'static str,
    /// The numbers, in order.
    pub values: Vec<f64>,
}

const WIDTH: usize = 60;
const HEIGHT: usize = 9;

/// Draws curves, `*`, each on a healthy one, `o`; `#` where both are at one place. A number that is
/// not finite is left out.
pub fn charts(yours: &[Curve], healthy: &[Curve]) -> String {
    let pairs = yours.iter().zip(healthy);
    pairs.map(|(yours, healthy)| chart(yours, healthy)).collect::<Vec<_>>().join("\n")
}

fn chart(yours: &Curve, healthy: &Curve) -> String {
    let all = || yours.values.iter().chain(&healthy.values).copied().filter(|x| x.is_finite());
    let (low, high) =
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let range = if high - low < 1e-9 { 1.0 } else { high - low };
    let rows = [yours, healthy].map(|curve| rows(&curve.values, low, range));
    let mut text = format!("{}: * yours, o healthy, # both\n", yours.name);
    for at in 0..HEIGHT {
        let marks = rows[0].iter().zip(&rows[1]).map(|(yours, healthy)| {
            match (*yours == Some(at), *healthy == Some(at)) {
                (true, true) => '#',
                (true, false) => '*',
                (false, true) => 'o',
                (false, false) => ' ',
            }
        });
        let label = match at {
            0 => format!("{:>8.3}", low + range),
            _ if at + 1 == HEIGHT => format!("{low:>8.3}"),
            _ => " ".repeat(8),
        };
        let line = format!("{label} |{}", marks.collect::<String>());
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The row of each column, counted from the top.
fn rows(values: &[f64], low: f64, range: f64) -> Vec<Option<usize>> {
    let last = values.len().saturating_sub(1);
    let row = |column: usize| {
        let at = (column * last + (WIDTH - 1) / 2) / (WIDTH - 1);
        let value = values.get(at).filter(|value| value.is_finite())?;
        let up = ((value - low) / range * (HEIGHT - 1) as f64).round() as usize;
        Some(HEIGHT - 1 - up.min(HEIGHT - 1))
    };
    (0..WIDTH).map(row).collect()
}
