//! Repeated measurements.

use serde::{Deserialize, Serialize};

/// Median and range of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: (lower + upper) / 2.0, min, max })
    }

    /// The median divided by that of `base`; `None` if that is 0.
    pub fn ratio_to(&self, base: &Self) -> Option<f64> {
        ratio(self.median, base.median)
    }
}

/// `value / base`; `None` if that is not a finite number.
pub(in crate::lab) fn ratio(value: f64, base: f64) -> Option<f64> {
    Some(value / base).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 10.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(Spread::of([5.0, 1.0, 2.0]).map(|s| s.median), Some(2.0));
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        let (four, two) = (Spread::of([4.0]).unwrap(), Spread::of([2.0]).unwrap());
        assert_eq!(two.ratio_to(&four), Some(0.5));
        assert_eq!(two.ratio_to(&Spread::of([0.0]).unwrap()), None);
        assert_eq!(Spread::of([0.0]).unwrap().ratio_to(&Spread::of([0.0]).unwrap()), None);
    }
}
