//! `recua rm`: takes a model out of the cache.

use crate::args::RmArgs;
use crate::failure::{Failure, Result};
use crate::output::{bytes, note};
use crate::store::cache::Cache;
use crate::store::hub::{find_in_cache, not_in_cache};
use crate::store::name::HubName;
use crate::store::remove::{remove, remove_leftovers};
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
        let folder = Cache::of_user()?.repo(&name.repo);
        match find_in_cache(&folder, &name)? {
            Some(located) => note!("removed {name}: {} freed", bytes(remove(&located)?)),
            None => match remove_leftovers(&folder)? {
                0 => return Err(Failure::user(not_in_cache(&folder, &name))),
                freed => {
                    note!("removed what interrupted downloads had left of {name}: {} freed", bytes(freed))
                }
            },
        }
    }
    Ok(())
}
