//! Symmetric positive definite systems: Cholesky's factors.

/// A symmetric matrix, of which the lower half counts, by rows.
#[derive(Clone, Debug)]
pub(crate) struct Symmetric {
    pub(crate) size: usize,
    pub(crate) values: Vec<f64>,
}

impl Symmetric {
    pub(crate) fn diagonal(values: &[f64]) -> Self {
        let size = values.len();
        let mut matrix = Self { size, values: vec![0.0; size * size] };
        for (i, value) in values.iter().enumerate() {
            matrix.values[i * size + i] = *value;
        }
        matrix
    }

    /// Adds `weight` × row × rowᵀ, the row having `values` at `places`, which ascend.
    pub(crate) fn add_outer(&mut self, places: &[usize], values: &[f64], weight: f64) {
        for (own, (&i, a)) in places.iter().zip(values).enumerate() {
            let line = &mut self.values[i * self.size..(i + 1) * self.size];
            for (&j, b) in places[..=own].iter().zip(values) {
                line[j] += weight * a * b;
            }
        }
    }

    /// Factorises in place; what is no longer positive is held at a small number, so that the system stays solvable.
    pub(crate) fn factorise(&mut self) {
        let n = self.size;
        for i in 0..n {
            let (done, rest) = self.values.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &done[j * n..j * n + j + 1];
                let dot: f64 = row[..j].iter().zip(other).map(|(a, b)| a * b).sum();
                row[j] = (row[j] - dot) / other[j];
            }
            let square: f64 = row[..i].iter().map(|a| a * a).sum();
            row[i] = (row[i] - square).max(1e-12).sqrt();
        }
    }

    /// Solves with the factors.
    pub(crate) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let n = self.size;
        let mut x = right.to_vec();
        for i in 0..n {
            let row = &self.values[i * n..i * n + i];
            let dot: f64 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            x[i] = (x[i] - dot) / self.values[i * n + i];
        }
        for i in (0..n).rev() {
            x[i] /= self.values[i * n + i];
            let value = x[i];
            for (j, x) in x.iter_mut().enumerate().take(i) {
                *x -= self.values[i * n + j] * value;
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_system() {
        let mut matrix = Symmetric::diagonal(&[1.0, 2.0, 3.0]);
        matrix.add_outer(&[0, 2], &[1.0, 2.0], 0.5);
        // [[1.5, 0, 1], [0, 2, 0], [1, 0, 5]] x = [5.5, 4, 16] has x = [1, 2, 3] when 1.5 + 3 = 4.5.
        let right = [4.5, 4.0, 16.0];
        matrix.factorise();
        let x = matrix.solve(&right);
        for (got, want) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((got - want).abs() < 1e-9, "{x:?}");
        }
    }
}
