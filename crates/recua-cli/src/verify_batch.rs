//! `recua verify-batch`: contract 1, proved on the user's machine.

mod proof;
#[cfg(test)]
mod tests;
