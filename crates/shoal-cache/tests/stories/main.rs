//! Stories of one node and of three, in one process.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod chunk_copies;
#[cfg(test)]
mod chunk_troubles;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod edition;
#[cfg(test)]
mod fields_alone;
#[cfg(test)]
mod got;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod on_disk;
#[cfg(test)]
mod one_node;
#[cfg(test)]
mod origin;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod purges;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod searches;
#[cfg(test)]
mod spread;
#[cfg(test)]
mod support;
#[cfg(test)]
mod three_nodes;
#[cfg(test)]
mod wires;
