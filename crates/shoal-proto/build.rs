//! Compiles `proto/` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = ["shoal/admin/v1/admin.proto", "shoal/cache/v1/cache.proto", "shoal/raft/v1/raft.proto"];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files.iter().map(|f| format!("{root}/{f}")), [root])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
