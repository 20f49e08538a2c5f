//! Nodes that die and come back.

use super::{Answer, Wire, World};
use crate::node::{Fill, Step};

impl World {
    pub(super) fn kill(&mut self, n: usize) {
        if !self.nodes[n].is_alive {
            return;
        }
        self.tell(|| format!("n{} dies", n + 1));
        self.figures.deaths += 1;
        let keeps_objects = self.dice.says(50);
        self.nodes[n].die(keeps_objects);
        self.fetching.retain(|fetching| fetching.node != n);
        let answer = Answer::Unreachable;
        let waits = |fill: &Fill| matches!(fill.waits_for, Some(Step::Ask { node, .. }) if node == n);
        let asked =
            |fill: usize, wire: &Wire| matches!(wire, Wire::Ask { fill: other, .. } if *other == fill);
        let mut lost = Vec::new();
        for (to, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive) {
            let waiting = node.fills.iter().filter(|(_, fill)| waits(fill)).map(|(number, _)| *number);
            lost.extend(waiting.map(|fill| (to, node.life, fill)));
        }
        for (to, life, fill) in lost {
            // What is still on its way finds nobody there; what was answered arrives.
            let is_open = self.wires.iter().any(|wire| {
                asked(fill, wire) || matches!(wire, Wire::Answer { fill: other, .. } if *other == fill)
            });
            if !is_open {
                self.wires.push(Wire::Answer { to, life, fill, answer });
            }
        }
        self.spread(n, None);
    }

    pub(super) fn start_again(&mut self, n: usize) {
        if self.nodes[n].is_alive {
            return;
        }
        self.tell(|| format!("n{} is back", n + 1));
        let lives: Vec<Option<u32>> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(m, node)| (node.is_alive || m == n).then_some(node.life))
            .collect();
        let (now_ms, stamp) = (self.now_ms, self.news);
        let node = &mut self.nodes[n];
        node.is_alive = true;
        node.is_cut_off = false;
        node.life += 1;
        node.view = lives;
        node.view[n] = Some(node.life);
        node.stamps = vec![stamp; node.stamps.len()];
        node.past.clear();
        node.serving_since_ms = now_ms;
        let life = node.life;
        self.spread(n, Some(life));
    }

    pub(super) fn spread(&mut self, about: usize, about_life: Option<u32>) {
        self.news += 1;
        let stamp = self.news;
        for to in (0..self.nodes.len()).filter(|to| *to != about) {
            self.wires.push(Wire::News { to, about, about_life, stamp });
        }
    }
}
