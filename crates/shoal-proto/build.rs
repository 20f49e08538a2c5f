//! Compiles `proto/` without protoc.

/// Fields that hold an enum: printed by the name the `.proto` file gives the value, without its prefix, or by the word that
/// operators know it by.
const ENUM_FIELDS: [(&str, &str); 3] = [
    (".shoal.admin.v1.Change.action", "crate::names::change_action"),
    (".shoal.admin.v1.NodeAck.state", "crate::names::ack_state"),
    (".shoal.admin.v1.PurgeResponse.acks", "crate::names::purge_acks"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = ["shoal/admin/v1/admin.proto", "shoal/cache/v1/cache.proto", "shoal/raft/v1/raft.proto"];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files.iter().map(|f| format!("{root}/{f}")), [root])?;
    let mut builder =
        tonic_prost_build::configure().message_attribute(".shoal.admin.v1", "#[derive(::serde::Serialize)]");
    for (field, writer) in ENUM_FIELDS {
        builder = builder.field_attribute(field, format!("#[serde(serialize_with = \"{writer}\")]"));
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
