//! The shared op cases.

use crate::device;
use recua_compute::cases;

#[test]
fn ops_match_the_reference() {
    let Some(device) = device() else { return };
    let report = cases::check_all(device);
    println!("{}: {}\n{report}", device.info().name, device.info().detail);
    report.assert();
}

#[test]
fn a_rows_bits_do_not_depend_on_its_companions() {
    let Some(device) = device() else { return };
    let report = cases::check_same_bits(device);
    println!("{report}");
    report.assert();
}

/// Among others: whatever ops are fused, a plan has the bits of its ops run one by one.
#[test]
fn random_plans_do_what_their_operands_say() {
    let Some(device) = device() else { return };
    let tally = cases::random_plans::check(device, 3, 200).unwrap_or_else(|e| panic!("{e}"));
    println!("{tally:?}");
    assert!(tally.ran > 130 && tally.recorded > 600, "{tally:?}");
}
