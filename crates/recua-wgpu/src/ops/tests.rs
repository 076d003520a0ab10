//! Attention by cooperative matrices, on an adapter that has none.

use crate::matmul::tests::opened;
use recua_compute::cases;
use std::cell::Cell;

thread_local! {
    /// Whether attention goes through the kernel of cooperative matrices, whatever the adapter has.
    pub(crate) static EMULATED: Cell<bool> = const { Cell::new(false) };
}

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    let Some(device) = opened() else { return };
    EMULATED.set(true);
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}
