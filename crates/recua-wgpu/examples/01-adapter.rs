//! The adapters of this machine, which one becomes the device, and why.
//!
//! `cargo run -p recua-wgpu --example 01-adapter -- [PART OF ITS NAME]`

use recua_compute::Result;
use recua_wgpu::{ADAPTER_VARIABLE, Options, adapters, open};

fn main() -> Result<()> {
    // Without an argument the environment variable names the adapter; without either, the best one is taken: a discrete GPU before an
    // integrated one. A software adapter is taken only if it is allowed, as here, and then also by name.
    let adapter = std::env::args().nth(1);
    println!("asked for: {adapter:?}, {ADAPTER_VARIABLE}={:?}", std::env::var(ADAPTER_VARIABLE).ok());
    let options = Options { adapter, allow_software: true, ..Options::default() };

    for report in adapters(&options) {
        println!("{} {}", if report.is_chosen { "->" } else { "  " }, report.name);
        println!("     {}: {}", if report.is_chosen { "chosen" } else { "not chosen" }, report.reason);
        println!("     {}; {}", report.detail, report.driver);
    }

    // The same choice. If no adapter is suitable, the error lists what each lacks.
    let device = open(options)?;
    println!("opened {}: {}", device.info().name, device.info().detail);

    let nobody = Options { adapter: Some("no such adapter".into()), ..Options::default() };
    if let Err(error) = open(nobody) {
        println!("refused: {error}");
    }
    Ok(())
}
