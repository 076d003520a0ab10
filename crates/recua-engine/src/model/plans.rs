//! The plans of a model's passes, kept by shape.

use super::llama::Shape;
use recua_compute::Plan;
use std::collections::HashMap;

/// Recorded plans. The one used longest ago makes room for a new one.
#[derive(Default)]
pub(crate) struct Plans {
    plans: HashMap<Shape, (u64, Plan)>,
    clock: u64,
}

impl Plans {
    /// A server's steps have a few dozen shapes at a time; a large model's plan takes some hundred kilobytes.
    const N_MAX: usize = 64;

    pub(crate) fn get(&mut self, key: Shape) -> Option<&Plan> {
        self.clock += 1;
        let (used, plan) = self.plans.get_mut(&key)?;
        *used = self.clock;
        Some(plan)
    }

    pub(crate) fn insert(&mut self, key: Shape, plan: Plan) {
        if self.plans.len() >= Self::N_MAX
            && let Some(oldest) = self.plans.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            self.plans.remove(&oldest);
        }
        self.plans.insert(key, (self.clock, plan));
    }
}
