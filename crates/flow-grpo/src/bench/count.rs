//! What a case asks of the GPU, counted instead of timed: launches, kernels compiled for it, and the
//! memory that CubeCL has taken.
//!
//! CubeCL 0.10 reports launches and compiled kernels, and only on cuda. It reports no copies: `nsys
//! profile --stats=true` counts those, and reads.

use anyhow::Result;

use crate::{
    backend,
    machine::{counts, memory},
    terminal::output,
};

/// A named piece of work, which ends with a read from the device.
pub type Case<'a> = (&'a str, &'a dyn Fn());

/// Counts every case and prints a table; on a backend that reports nothing, says so.
///
/// # Errors
/// If the table cannot be printed.
pub fn count(title: &str, cases: &[Case<'_>]) -> Result<()> {
    output::print(table(title, cases).unwrap_or_else(|| {
        format!("nothing to count: the backend {} reports no launches\n", backend::NAME)
    }))
}

fn table(title: &str, cases: &[Case<'_>]) -> Option<String> {
    let mut table = format!("{title}\n\n{}", header());
    for (name, case) in cases {
        let start = counts::settled()?;
        case(); // Compiles and tunes its kernels.
        let warm = counts::settled()?;
        case();
        let counted = counts::settled()?.since(warm);
        table += &line(name, counted.launched, warm.since(start).compiled, memory::taken_mib());
    }
    Some(table)
}

fn header() -> String {
    format!("{:<20} {:>9} {:>22} {:>11}\n", "case", "launches", "compiled or tuned", "MiB taken")
}

fn line(name: &str, launched: usize, compiled: usize, taken: Option<u64>) -> String {
    let taken = taken.map_or_else(|| "-".to_owned(), |taken| taken.to_string());
    format!("{name:<20} {launched:>9} {compiled:>22} {taken:>11}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_under_its_header() {
        let (header, line) = (header(), line("denoise", 2019, 609, Some(17_580)));
        assert_eq!(header.len(), line.len());
        assert!(line.ends_with("609       17580\n"), "{line}");
    }

    #[test]
    fn a_build_that_does_not_count_has_no_table() {
        let case = || panic!("nothing is computed in vain");
        assert_eq!(table("title", &[("nothing", &case)]), None);
    }
}
