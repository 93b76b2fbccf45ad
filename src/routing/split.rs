//! Weights -> version: monotone for users, low-discrepancy without a key.

/// The weights over a service's versions, in file order. Their sum is above zero (held when it is built).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    weights: Box<[u32]>,
    total: u64,
}

impl Split {
    /// `None` when all weights are zero (or there are none).
    pub fn new(weights: impl Into<Box<[u32]>>) -> Option<Self> {
        let weights = weights.into();
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        (total > 0).then_some(Self { weights, total })
    }

    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The share of the version at `index`, 0.0 to 100.0; 0 for an unknown one.
    pub fn share_percent(&self, index: usize) -> f64 {
        self.weights
            .get(index)
            .map_or(0.0, |&w| f64::from(w) * 100.0 / self.total as f64)
    }
}
