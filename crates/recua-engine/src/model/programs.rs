//! The programs of one model: each shape of a pass is recorded and compiled once.

use super::llama::Shape;
use crate::error::Result;
use recua_compute::Program;
use std::collections::HashMap;

/// Programs by shape. The one used longest ago makes room for a new one.
#[derive(Default)]
pub(crate) struct Programs {
    programs: HashMap<Shape, (u64, Program)>,
    clock: u64,
}

impl Programs {
    /// A server's steps have a few dozen shapes at a time; a large model's program takes some hundred kilobytes.
    const N_MAX: usize = 64;

    /// The program of a shape, made by `compile` if there is none.
    pub(crate) fn get(
        &mut self,
        shape: Shape,
        compile: impl FnOnce() -> Result<Program>,
    ) -> Result<&Program> {
        self.clock += 1;
        if !self.programs.contains_key(&shape) {
            let program = compile()?;
            if self.programs.len() >= Self::N_MAX
                && let Some(oldest) =
                    self.programs.iter().min_by_key(|(_, (used, _))| *used).map(|(shape, _)| *shape)
            {
                self.programs.remove(&oldest);
            }
            self.programs.insert(shape, (0, program));
        }
        let (used, program) = self.programs.get_mut(&shape).expect("it is there or was inserted just now");
        *used = self.clock;
        Ok(program)
    }
}
