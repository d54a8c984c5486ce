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
    let row = |value: f64| {
        let up = ((value - low) / range * (HEIGHT - 1) as f64).round() as usize;
        HEIGHT - 1 - up.min(HEIGHT - 1)
    };
    let mut grid = vec![[' '; WIDTH]; HEIGHT];
    for (curve, mark) in [(healthy, 'o'), (yours, '*')] {
        let last = curve.values.len().saturating_sub(1);
        for column in 0..WIDTH {
            let at = (column * last + (WIDTH - 1) / 2) / (WIDTH - 1);
            if let Some(value) = curve.values.get(at).copied().filter(|value| value.is_finite()) {
                let place = &mut grid[row(value)][column];
                *place = if *place == ' ' { mark } else { '#' };
            }
        }
    }
    let mut text = format!("{}: * yours, o healthy, # both\n", yours.name);
    for (at, line) in grid.iter().enumerate() {
        let label = match at {
            0 => format!("{:>8.3}", low + range),
            at if at + 1 == HEIGHT => format!("{low:>8.3}"),
            _ => " ".repeat(8),
        };
        text += &format!("{label} |{}", line.iter().collect::<String>());
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
