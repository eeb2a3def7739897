//! Normal equations in which most unknowns concern one device each: the unknowns of a device are eliminated by themselves, so
//! that only those which devices share make one dense system.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which unknowns belong together: shared ones first, then block after block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    shared: usize,
    blocks: Vec<Range<usize>>,
    /// For each block the shared unknowns that stand in one equation with its own, ascending.
    touched: Vec<Vec<usize>>,
}

/// The device that an effect is of, where it is of one: `decode/scale/machine=X|Y` is of X.
fn owner(name: &str) -> Option<&str> {
    let (_, key) = name.split_once("/device=").or_else(|| name.split_once("/machine="))?;
    key.split('|').next()
}

impl Layout {
    /// Order of unknowns by name, and their layout, from the names that stand in one equation together.
    pub(crate) fn of<'a>(equations: &[BTreeSet<&'a str>]) -> (BTreeMap<&'a str, usize>, Self) {
        let all: BTreeSet<&str> = equations.iter().flatten().copied().collect();
        // Devices that stand in one equation make one block, under the first of their names.
        let mut heads: BTreeMap<&str, &str> = all.iter().filter_map(|name| owner(name)).map(|owner| (owner, owner)).collect();
        for equation in equations {
            let owners: BTreeSet<&str> =
                equation.iter().filter_map(|name| owner(name)).filter_map(|owner| heads.get(owner).copied()).collect();
            if let (true, Some(first)) = (owners.len() > 1, owners.first().copied()) {
                heads.values_mut().filter(|head| owners.contains(**head)).for_each(|head| *head = first);
            }
        }
        let block = |name: &str| owner(name).and_then(|owner| heads.get(owner).copied());
        let mut groups: BTreeMap<Option<&str>, Vec<&'a str>> = BTreeMap::new();
        all.iter().for_each(|name| groups.entry(block(name)).or_default().push(name));
        let (mut places, mut layout) = (BTreeMap::new(), Self::default());
        let mut own_block = BTreeMap::new();
        for (head, names) in groups {
            let start = places.len();
            names.into_iter().enumerate().for_each(|(place, name)| {
                places.insert(name, start + place);
            });
            match head {
                None => layout.shared = places.len(),
                Some(head) => {
                    own_block.insert(head, layout.blocks.len());
                    layout.blocks.push(start..places.len());
                }
            }
        }
        let mut touched = vec![BTreeSet::new(); layout.blocks.len()];
        for equation in equations {
            let own = equation.iter().find_map(|name| own_block.get(block(name)?)).copied();
            if let Some(touched) = own.and_then(|own| touched.get_mut(own)) {
                touched.extend(equation.iter().filter_map(|name| places.get(name)).filter(|&&place| place < layout.shared));
            }
        }
        layout.touched = touched.into_iter().map(|places| places.into_iter().collect()).collect();
        (places, layout)
    }

    fn block_at(&self, place: usize) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.start <= place);
        after.checked_sub(1).filter(|&block| self.blocks.get(block).is_some_and(|range| range.contains(&place)))
    }
}

/// The system: precisions plus weighted outer products.
pub(crate) struct Arrow<'a> {
    layout: &'a Layout,
    shared: DMatrix<f64>,
    /// Own by own, and own by touched.
    blocks: Vec<(DMatrix<f64>, DMatrix<f64>)>,
}

/// What is left of a block to find its unknowns from the shared ones: its factors, and the reduced sides.
type Eliminated = (Cholesky<f64, Dyn>, DMatrix<f64>, DVector<f64>);

impl<'a> Arrow<'a> {
    /// With these precisions on the diagonal.
    pub(crate) fn new(layout: &'a Layout, precisions: &[f64]) -> Self {
        let diagonal = |range: Range<usize>| DMatrix::from_diagonal(&DVector::from_column_slice(&precisions[range]));
        let block = |(range, touched): (&Range<usize>, &Vec<usize>)| (diagonal(range.clone()), DMatrix::zeros(range.len(), touched.len()));
        Self { layout, shared: diagonal(0..layout.shared), blocks: layout.blocks.iter().zip(&layout.touched).map(block).collect() }
    }

    /// Adds `weight` × row × rowᵀ, the row having values at `places`, which ascend and are of one block at most.
    pub(crate) fn add(&mut self, places: &[usize], row: &[f64], weight: f64) {
        let count = places.partition_point(|&place| place < self.layout.shared);
        for (own, (&j, b)) in places.iter().zip(row).take(count).enumerate() {
            let mut column = self.shared.column_mut(j);
            for (&i, a) in places[..count].iter().zip(row).skip(own) {
                column[i] += weight * a * b;
            }
        }
        let Some(block) = places.get(count).and_then(|&place| self.layout.block_at(place)) else { return };
        let start = self.layout.blocks[block].start;
        let touched = &self.layout.touched[block];
        let (own, beside) = &mut self.blocks[block];
        for (&i, a) in places.iter().zip(row).skip(count) {
            for (&j, b) in places.iter().zip(row).skip(count) {
                own[(i - start, j - start)] += weight * a * b;
            }
            for (&j, b) in places.iter().zip(row).take(count) {
                if let Ok(j) = touched.binary_search(&j) {
                    beside[(i - start, j)] += weight * a * b;
                }
            }
        }
    }

    /// The solution; `None` where rounding has made the system singular.
    pub(crate) fn solve(mut self, right: &[f64]) -> Option<Vec<f64>> {
        let mut answer = right.to_vec();
        let mut done: Vec<Eliminated> = Vec::with_capacity(self.blocks.len());
        for ((own, beside), (range, touched)) in self.blocks.into_iter().zip(self.layout.blocks.iter().zip(&self.layout.touched)) {
            let factors = Cholesky::new(own)?;
            let lower = factors.l();
            let reduced = lower.solve_lower_triangular(&beside)?;
            let part = lower.solve_lower_triangular(&DVector::from_column_slice(&right[range.clone()]))?;
            for (b, &j) in touched.iter().enumerate() {
                let column = reduced.column(b);
                answer[j] -= column.dot(&part);
                for (a, &i) in touched.iter().enumerate().skip(b) {
                    self.shared[(i, j)] -= reduced.column(a).dot(&column);
                }
            }
            done.push((factors, reduced, part));
        }
        let common = Cholesky::new(self.shared)?.solve(&DVector::from_column_slice(&answer[..self.layout.shared]));
        answer[..self.layout.shared].copy_from_slice(common.as_slice());
        for ((factors, reduced, part), (range, touched)) in done.into_iter().zip(self.layout.blocks.iter().zip(&self.layout.touched)) {
            let near = DVector::from_iterator(touched.len(), touched.iter().map(|&place| common[place]));
            let own = factors.l().transpose().solve_upper_triangular(&(part - reduced * near))?;
            answer[range.clone()].copy_from_slice(own.as_slice());
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eliminating_devices_gives_what_the_whole_system_gives() {
        let equations = [
            BTreeSet::from(["d/w/all", "d/w/class=x", "d/scale/device=a", "d/scale/machine=a|m"]),
            BTreeSet::from(["d/w/all", "d/scale/device=b", "d/launch/device=b"]),
            BTreeSet::from(["d/w/all", "d/w/class=y"]),
            BTreeSet::from(["d/w/class=y", "d/scale/device=c", "d/scale/device=a"]),
        ];
        let (places, layout) = Layout::of(&equations);
        assert_eq!((layout.shared, layout.blocks.len()), (3, 2));
        let precisions: Vec<f64> = (0..places.len()).map(|place| 1.0 + place as f64).collect();
        let mut arrow = Arrow::new(&layout, &precisions);
        let mut whole = DMatrix::from_diagonal(&DVector::from_column_slice(&precisions));
        for (number, equation) in equations.iter().enumerate() {
            let at: BTreeSet<usize> = equation.iter().map(|name| places[name]).collect();
            let at: Vec<usize> = at.into_iter().collect();
            let row: Vec<f64> = at.iter().map(|&place| 1.0 + (place * 7 + number) as f64 % 5.0).collect();
            arrow.add(&at, &row, 0.7);
            for (&i, a) in at.iter().zip(&row) {
                at.iter().zip(&row).for_each(|(&j, b)| whole[(i, j)] += 0.7 * a * b);
            }
        }
        let right: Vec<f64> = (0..places.len()).map(|place| (place as f64).sin()).collect();
        let want = Cholesky::new(whole).unwrap().solve(&DVector::from_column_slice(&right));
        for (got, want) in arrow.solve(&right).unwrap().iter().zip(want.iter()) {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
    }
}
