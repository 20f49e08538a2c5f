//! A network of its own for a story, in which nodes can be cut off from each other, while those who ask them are not.
//!
//! The story runs as a process of its own in a network namespace that has nothing but a bridge; each node is in another one,
//! at the end of a cable. What a node is not to hear is dropped as it arrives there, by nft: nobody is told, as on a wire.
//!
//! Places may be in regions: what goes from one to another takes the way through a [relay](crate::relay), which delays it. The
//! story itself is near to all of them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::outside::{SKIPPED, find_program, say_past_capture, skip};
use crate::relay::{Carried, Relay, Wire, open_device};

/// Says that this process is in the network already.
const INSIDE: &str = "SHOAL_STORY_NETWORK";
/// What the namespaces are made of.
const PROGRAMS: [&str; 6] = ["ip", "mount", "nft", "nsenter", "umount", "unshare"];
/// For a namespace to be there.
const DEADLINE: Duration = Duration::from_secs(10);
/// What a node drops.
const RULES: &str = include_str!("rules.nft");
/// Whether there can be all that at all.
const TRIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/trial.sh");

/// The network of a story. It goes with it.
pub struct Network {
    places: Vec<Place>,
    relay: Relay,
    /// Which regions the story knows the way to.
    regions: BTreeSet<usize>,
}

/// What nodes say to each other, by how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Who is there, and how endpoints do.
    Gossip,
    /// The log, and the cache.
    Calls,
}

impl Channel {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Gossip => "udp",
            Self::Calls => "tcp",
        }
    }
}

/// Where a node is.
struct Place {
    ip: IpAddr,
    /// Keeps the namespace.
    holder: Child,
}

impl Network {
    /// Where origins and those who ask are: every node reaches them, and is reached.
    pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

    /// Tells `story`, which is all of the test called `test`, in a network of its own; a skip where there cannot be one.
    pub fn around<S: Future<Output = Result<()>>>(test: &str, story: impl FnOnce(Self) -> S) -> Result<()> {
        Self::of_extent("", test, story)
    }

    /// The same for a story of regions; a skip where there can be no relay between them.
    pub fn of_regions<S: Future<Output = Result<()>>>(
        test: &str,
        story: impl FnOnce(Self) -> S,
    ) -> Result<()> {
        Self::of_extent("regions", test, story)
    }

    /// `extent` is what the trial is asked for.
    fn of_extent<S: Future<Output = Result<()>>>(
        extent: &str,
        test: &str,
        story: impl FnOnce(Self) -> S,
    ) -> Result<()> {
        if env::var_os(INSIDE).is_some() {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            return runtime.block_on(story(Self::lay()?));
        }
        if let Some(why) = what_is_missing(extent) {
            skip(test, &why);
            return Ok(());
        }
        let mut command = Command::new("unshare");
        command
            .args(["-n", "-m"])
            .arg(env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1");
        let told = command.output().context("start the story again")?;
        let text =
            [told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(told.status.success(), "{test}, in a network of its own: {}\n{text}", told.status);
        let is_skip = |line: &&str| line.starts_with(SKIPPED);
        text.lines().filter(is_skip).for_each(say_past_capture);
        eprint!("{text}");
        Ok(())
    }

    fn lay() -> Result<Self> {
        run("ip", "link set lo up")?;
        run("ip", "link add street type bridge")?;
        run("ip", &format!("addr add {}/24 dev street", Self::HERE))?;
        run("ip", "link set street up")?;
        Ok(Self { places: Vec::new(), relay: Relay::default(), regions: BTreeSet::new() })
    }

    /// A place for one more node: its address, and the command that enters it.
    pub(crate) fn add_place(&mut self) -> Result<(IpAddr, Vec<String>)> {
        let ip = Ipv4Addr::new(10, 77, 0, 11 + self.places.len() as u8);
        let place = self.make_place(ip)?;
        place.run("ip", &format!("addr add {ip}/24 dev wall"), "")?;
        Ok((ip.into(), self.keep(place)))
    }

    /// The same in a region, by its number: those of other regions are reached through the relay.
    pub(crate) fn add_place_in(&mut self, region: usize) -> Result<(IpAddr, Vec<String>)> {
        let n = self.places.len() as u8;
        let subnet = 1 + region as u8;
        let ip = Ipv4Addr::new(10, 77, subnet, 11 + n);
        if self.regions.insert(region) {
            run("ip", &format!("route add 10.77.{subnet}.0/24 dev street src {}", Self::HERE))?;
        }
        let place = self.make_place(ip)?;
        let device = open_device(&format!("far{n}"))?;
        run("ip", &format!("link set far{n} netns {}", place.holder.id()))?;
        place.run("ip", &format!("link set far{n} up"), "")?;
        place.run("ip", &format!("addr add {ip}/32 dev wall"), "")?;
        for (to, through) in [
            (format!("{}/32", Self::HERE), "wall".to_owned()),
            (format!("10.77.{subnet}.0/24"), "wall".to_owned()),
            ("10.77.0.0/16".to_owned(), format!("far{n}")),
        ] {
            place.run("ip", &format!("route add {to} dev {through} src {ip}"), "")?;
        }
        self.relay.add(ip, region, device)?;
        Ok((ip.into(), self.keep(place)))
    }

    /// What is sent between regions from now on goes over this wire.
    pub fn lay_wire(&self, wire: Wire) {
        self.relay.lay(wire);
    }

    /// From now on nothing passes between the region and any other.
    pub fn cut_region(&self, region: usize) {
        self.relay.set_cut(region, true);
    }

    /// From now on everything does again.
    pub fn rejoin_region(&self, region: usize) {
        self.relay.set_cut(region, false);
    }

    /// What went between regions so far.
    pub fn carried(&self) -> Carried {
        self.relay.carried()
    }

    /// A namespace at the end of a cable, with everything but a way to others.
    fn make_place(&self, ip: Ipv4Addr) -> Result<Place> {
        let n = self.places.len();
        let ip = IpAddr::V4(ip);
        let mut sleep = Command::new("unshare");
        sleep.args(["-n", "sleep", "infinity"]).stdin(Stdio::null()).stdout(Stdio::null());
        let place = Place { ip, holder: sleep.spawn().context("make a network namespace")? };
        let (since, own) = (Instant::now(), fs::read_link("/proc/self/ns/net")?);
        while fs::read_link(format!("/proc/{}/ns/net", place.holder.id()))? == own {
            ensure!(since.elapsed() < DEADLINE, "no network namespace within {DEADLINE:?}");
            std::thread::yield_now();
        }
        run("ip", &format!("link add door{n} type veth peer name wall netns {}", place.holder.id()))?;
        run("ip", &format!("link set door{n} master street up"))?;
        place.run("ip", "link set wall up", "")?;
        place.run("ip", "link set lo up", "")?;
        place.run("nft", "-f -", RULES)?;
        Ok(place)
    }

    /// The command that enters it.
    fn keep(&mut self, place: Place) -> Vec<String> {
        let entering = place.entering();
        self.places.push(place);
        entering
    }

    /// From now on the node at `to` hears nothing of the one at `from`, by their numbers; the other way is left as it is.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.places[to].run(
            "nft",
            &format!("add element inet story unheard {{ {} }}", self.places[from].ip),
            "",
        )
    }

    /// From now on it does again.
    pub fn mend(&self, from: usize, to: usize) -> Result<()> {
        let heard = format!("delete element inet story unheard {{ {} }}", self.places[from].ip);
        self.places[to].run("nft", &heard, "")
    }

    /// From now on nothing passes between the node and any other in `channel`, and everything else does.
    pub fn silence(&self, node: usize, channel: Channel) -> Result<()> {
        self.change_channel("add", node, channel)
    }

    /// From now on that does again.
    pub fn let_speak(&self, node: usize, channel: Channel) -> Result<()> {
        self.change_channel("delete", node, channel)
    }

    fn change_channel(&self, change: &str, node: usize, channel: Channel) -> Result<()> {
        self.others(node).flat_map(|other| [(node, other), (other, node)]).try_for_each(|(from, to)| {
            let unheard = format!("{} . {}", self.places[from].ip, channel.protocol());
            self.places[to].run(
                "nft",
                &format!("{change} element inet story unheard_channel {{ {unheard} }}"),
                "",
            )
        })
    }

    /// From now on nothing passes between the node and any other.
    pub fn isolate(&self, node: usize) -> Result<()> {
        self.others(node).try_for_each(|other| self.cut(node, other).and_then(|()| self.cut(other, node)))
    }

    /// From now on everything does again.
    pub fn rejoin(&self, node: usize) -> Result<()> {
        self.others(node).try_for_each(|other| self.mend(node, other).and_then(|()| self.mend(other, node)))
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.places.len()).filter(move |other| *other != node)
    }
}

impl Place {
    fn entering(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-n", "--"].map(str::to_owned).to_vec()
    }

    fn run(&self, program: &str, words: &str, input: &str) -> Result<()> {
        let entering = self.entering();
        let mut command = Command::new(&entering[0]);
        command.args(&entering[1..]).arg(program).args(words.split_whitespace());
        finish(command, input)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn run(program: &str, words: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(words.split_whitespace());
    finish(command, "")
}

/// Runs a command that says nothing when all is well.
fn finish(mut command: Command, input: &str) -> Result<()> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| shown.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that fails may not have read it.
        _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

fn what_is_missing(extent: &str) -> Option<String> {
    if let Some(program) = PROGRAMS.iter().find(|program| find_program(program).is_none()) {
        return Some(format!("there is no {program}"));
    }
    let mut command = Command::new("unshare");
    command.args(["-n", "-m", "sh", TRIAL, extent]);
    let failed = finish(command, RULES).err()?;
    Some(format!("no network can be made here: {}", failed.to_string().replace('\n', "; ")))
}
