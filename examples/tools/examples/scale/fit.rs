//! Least squares.

/// Returns the coefficients, none of them negative, with which the rows of `x` come closest to `y`, relative to `y`.
///
/// A coefficient that would be negative is left out: a unit can't cost less than nothing.
pub(crate) fn fit<const N: usize>(x: &[[f64; N]], y: &[f64]) -> [f64; N] {
    let mut used = [true; N];
    loop {
        let coefficients = solve(x, y, used);
        match (0..N)
            .filter(|i| coefficients[*i] < 0.0)
            .min_by(|a, b| coefficients[*a].total_cmp(&coefficients[*b]))
        {
            Some(negative) => used[negative] = false,
            None => return coefficients,
        }
    }
}

/// Solves the normal equations of the coefficients in use by Gaussian elimination; the others are 0.
fn solve<const N: usize>(x: &[[f64; N]], y: &[f64], used: [bool; N]) -> [f64; N] {
    let (mut a, mut b) = ([[0.0; N]; N], [0.0; N]);
    for (row, y) in x.iter().zip(y) {
        // Relative errors count, so that a large sample does not decide alone.
        let weight = 1.0 / (y * y).max(f64::MIN_POSITIVE);
        for i in 0..N {
            for j in 0..N {
                a[i][j] += weight * row[i] * row[j];
            }
            b[i] += weight * row[i] * y;
        }
    }
    for i in (0..N).filter(|i| !used[*i]) {
        (a[i], b[i]) = ([0.0; N], 0.0);
        a[i][i] = 1.0;
    }
    for column in 0..N {
        let pivot = (column..N).max_by(|i, j| a[*i][column].abs().total_cmp(&a[*j][column].abs())).unwrap();
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in (0..N).filter(|row| *row != column) {
            let factor = a[row][column] / a[column][column];
            let of_pivot = a[column];
            a[row].iter_mut().zip(of_pivot).for_each(|(of_row, of_pivot)| *of_row -= factor * of_pivot);
            b[row] -= factor * b[column];
        }
    }
    std::array::from_fn(|i| if used[i] { b[i] / a[i][i] } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
    }

    #[test]
    fn exact_samples_give_their_coefficients() {
        let x = [[1.0, 1.0], [1.0, 14.0], [1.0, 100.0]];
        assert!(close(&fit(&x, &[45.0, 110.0, 540.0]), &[40.0, 5.0]));
    }

    #[test]
    fn no_coefficient_is_negative() {
        let x = [[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]];
        let found = fit(&x, &[10.0, 9.0, 7.0]);
        assert!(found[1] == 0.0 && found[0] > 7.0, "{found:?}");
    }
}
