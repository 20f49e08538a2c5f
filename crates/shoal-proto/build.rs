//! Compiles `proto/` without protoc, and lists the calls of the operator's API.

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
    let admin = descriptors.file.iter().filter(|file| file.package() == "shoal.admin.v1");
    let calls = admin.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let names: Vec<String> = calls.map(|call| call.name().to_owned()).collect();
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(format!("{out}/admin_calls.rs"), admin_calls(&names))?;
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// An enum of the calls, by which they are told apart before they reach their handlers.
fn admin_calls(names: &[String]) -> String {
    let each = |line: &dyn Fn(&str) -> String| names.iter().map(|name| line(name)).collect::<String>();
    let variants = each(&|name| format!("    /// `{name}`.\n    {name},\n"));
    let all = each(&|name| format!("Self::{name}, "));
    let words = each(&|name| format!("            Self::{name} => \"{name}\",\n"));
    let paths =
        each(&|name| format!("            \"/shoal.admin.v1.AdminService/{name}\" => Some(Self::{name}),\n"));
    let count = names.len();
    format!(
        "\
/// A call of the operator's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCall {{
{variants}}}

impl AdminCall {{
    /// All of them, in the order of the service.
    pub const ALL: [Self; {count}] = [{all}];

    /// Its name in the service.
    pub const fn name(self) -> &'static str {{
        match self {{
{words}        }}
    }}

    /// The call that goes to this path.
    pub fn of_path(path: &str) -> Option<Self> {{
        match path {{
{paths}            _ => None,
        }}
    }}
}}
"
    )
}
