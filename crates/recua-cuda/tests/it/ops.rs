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
