//! `recua rm`: takes a model out of the cache.

use crate::args::RmArgs;
use crate::failure::{Failure, Result};
use crate::output::{bytes, note};
use crate::store::hub::find_in_cache;
use crate::store::name::HubName;
use crate::store::remove::remove;
use crate::store::{HUB, OLLAMA};

pub(crate) fn run(args: RmArgs) -> Result {
    for model in &args.models {
        if let Some(name) = model.strip_prefix(OLLAMA) {
            let message = format!("belongs to Ollama; `ollama rm {name}` removes it");
            return Err(Failure::user(format!("{model}: {message}")));
        }
        let Some(name) = model.strip_prefix(HUB) else {
            let message = "is not the name of a model in the cache; `recua list` shows those, and a file is removed by other means";
            return Err(Failure::user(format!("{model}: {message}")));
        };
        let name = HubName::parse(name)?;
        let freed = remove(&find_in_cache(&name)?)?;
        note!("removed {name}: {} freed", bytes(freed));
    }
    Ok(())
}
