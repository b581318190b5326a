//! Comparisons: alternated measurements of several sides, and the ratios of their costs.

use serde_json::{Value, json};
use vote_tools::command::rounded;

/// Costs of one side, a measurement each round, in the same unit as those of the side it is compared with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs {
    pub(crate) name: &'static str,
    pub(crate) of_rounds: Vec<f64>,
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
        }
    }
}

/// Ratio of two costs, over all rounds.
#[derive(Debug)]
pub(crate) struct Ratio {
    pub(crate) what: &'static str,
    pub(crate) against: &'static str,
    pub(crate) bar: Bar,
    /// Sorted.
    of_rounds: Vec<f64>,
}

impl Ratio {
    /// Returns the ratios of `dividend` to `divisor`, round by round.
    pub(crate) fn new(
        (what, against): (&'static str, &'static str),
        bar: Bar,
        dividend: &Costs,
        divisor: &Costs,
    ) -> Self {
        let pairs = dividend.of_rounds.iter().zip(&divisor.of_rounds);
        Self { what, against, bar, of_rounds: sorted(pairs.map(|(a, b)| a / b).collect()) }
    }

    fn median(&self) -> f64 {
        median(&self.of_rounds)
    }
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Prints tables of costs and ratios on stderr, and returns them as a report.
pub(crate) fn report(unit: &str, costs: &[Costs], ratios: &[Ratio]) -> Value {
    eprintln!("\n| {unit} | median | least | most |\n|---|---|---|---|");
    let mut cost_values = Vec::new();
    for Costs { name, of_rounds } in costs {
        let sorted = sorted(of_rounds.clone());
        let [least, middle, most] = [sorted[0], median(&sorted), sorted[sorted.len() - 1]];
        eprintln!("| {name} | {middle:.2} | {least:.2} | {most:.2} |");
        cost_values.push(json!({
            "name": name, "median": rounded(middle), "least": rounded(least), "most": rounded(most),
        }));
    }
    eprintln!("\n| what | against | ratio | least | most | wanted | |\n|---|---|---|---|---|---|---|");
    let mut ratio_values = Vec::new();
    for ratio in ratios {
        let Ratio { what, against, bar, of_rounds } = ratio;
        let (least, middle, most) = (of_rounds[0], ratio.median(), of_rounds[of_rounds.len() - 1]);
        let met = bar.holds(middle);
        let (wanted, mark) = (bar.text(), if met { "met" } else { "not met" });
        eprintln!("| {what} | {against} | {middle:.2} | {least:.2} | {most:.2} | {wanted} | {mark} |");
        ratio_values.push(json!({
            "what": what, "against": against, "median": rounded(middle), "least": rounded(least),
            "most": rounded(most), "wanted": wanted, "met": met,
        }));
    }
    let met = ratios.iter().all(|ratio| ratio.bar.holds(ratio.median()));
    json!({ "unit": unit, "costs": cost_values, "ratios": ratio_values, "met": met })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(of_rounds: &[f64]) -> Costs {
        Costs { name: "a", of_rounds: of_rounds.to_vec() }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds() {
        let ratio =
            Ratio::new(("a", "b"), Bar::AtLeast(0.5), &costs(&[1.0, 9.0, 2.0]), &costs(&[2.0, 1.0, 1.0]));
        assert!((ratio.median() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_report_says_whether_all_ratios_are_as_wanted() {
        let ratio = |bar| Ratio::new(("a", "b"), bar, &costs(&[1.0]), &costs(&[2.0]));
        let met = |ratios: &[Ratio]| report("µs", &[costs(&[1.0])], ratios)["met"].clone();
        assert_eq!(met(&[ratio(Bar::AtLeast(0.5)), ratio(Bar::AtMost(0.5))]), true);
        assert_eq!(met(&[ratio(Bar::AtLeast(0.5)), ratio(Bar::AtMost(0.4))]), false);
    }
}
