//! What nodes of the cluster gossip: messages one behind the other, or the value of a key.
#![no_main]

use std::panic::{set_hook, take_hook};

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        let end = take_hook();
        set_hook(Box::new(move |panic| {
            // In the task of the gossip library it ends no more than that, which a node notices; in another, the run.
            let is_of_library = panic.location().is_some_and(|place| place.file().contains("/chitchat-"));
            if !is_of_library {
                end(panic);
            }
        }));
    },
    |bytes: &[u8]| shoal_cluster::gossip::fuzzing::gossip(bytes)
);
