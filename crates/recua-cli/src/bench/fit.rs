//! A straight line through measured points.

/// `y = intercept + slope * x`, and how much of the points' variation it explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) intercept: f64,
    pub(super) slope: f64,
    pub(super) r_squared: f64,
}

/// The least-squares line. `None` for fewer than three different `x`: two points always lie on a line.
pub(super) fn line(points: &[(f64, f64)]) -> Option<Line> {
    let mut xs: Vec<f64> = points.iter().map(|p| p.0).collect();
    xs.sort_unstable_by(f64::total_cmp);
    xs.dedup();
    if xs.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| f(*x, *y)).sum::<f64>();
    let slope = sum(&|x, y| (x - mean_x) * (y - mean_y)) / sum(&|x, _| (x - mean_x).powi(2));
    let intercept = mean_y - slope * mean_x;
    let total = sum(&|_, y| (y - mean_y).powi(2));
    let residual = sum(&|x, y| (y - intercept - slope * x).powi(2));
    // A constant is a line too.
    let r_squared = if total > 0.0 { 1.0 - residual / total } else { 1.0 };
    Some(Line { intercept, slope, r_squared })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];

    fn fitted(y: impl Fn(f64) -> f64) -> Line {
        line(&BATCHES.map(|x| (x, y(x)))).unwrap()
    }

    #[test]
    fn a_line_is_found() {
        let line = fitted(|x| 5.0 + 3.0 * x);
        assert!((line.intercept - 5.0).abs() < 1e-9 && (line.slope - 3.0).abs() < 1e-9, "{line:?}");
        assert!(line.r_squared > 1.0 - 1e-12);
        assert_eq!(fitted(|_| 7.0).r_squared, 1.0);
    }

    #[test]
    fn a_curve_is_not_a_line() {
        assert!(fitted(|x| x * x).r_squared < 0.97);
        assert!(fitted(f64::ln).r_squared < 0.9);
    }

    #[test]
    fn two_points_prove_nothing() {
        assert_eq!(line(&[(1.0, 1.0), (2.0, 2.0), (2.0, 2.1)]), None);
    }
}
