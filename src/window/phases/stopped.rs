//! `service-stopped`: stopped at the end, nothing left in the control group, no run in between.

use super::{Duration, Mode, ServiceKind, ServiceState, chain, few, human_duration};
use crate::format::manifest::{Evidence, How};
use crate::window::evidence::unseen;
use crate::window::nodes::{at_once, by_node};
use crate::window::running::{Core, Watched, scope};
use crate::window::start::ask;

const CHECK: &str = "service-stopped";

impl Core {
    /// Whether no process is left in the control groups, as far as that can be told.
    pub(super) fn groups_are_empty(&self) -> bool {
        let those = self.services.iter().filter(|watched| watched.ran());
        let groups = by_node(those.map(|watched| (watched.intent.node.clone(), watched)));
        let is_empty = |watched: &Watched| !matches!(watched.service.cgroup_processes(), Ok(Some(pids)) if !pids.is_empty());
        at_once(groups, |group| group.into_iter().all(is_empty)).into_iter().all(|empty| empty)
    }

    /// Whether what a service leaves behind would be seen in its control group: of all that were
    /// stopped.
    pub(super) fn groups_are_known(&self) -> bool {
        let mut ran = self.services.iter().filter(|watched| watched.ran());
        self.plan.mode.stops() && ran.all(|watched| watched.was.cgroup.is_some())
    }

    /// `service-stopped`, one for each service.
    pub(super) fn stopped_evidence(&self) -> Vec<Evidence> {
        if self.services.is_empty() {
            let said = match self.plan.mode {
                Mode::NoService => "plain directories: no service is named",
                _ => "the operator said that it is stopped",
            };
            return vec![Evidence {
                check: CHECK.into(),
                subject: self.plan.site.clone(),
                node: self.context.observer.node(),
                scope: "none".into(),
                held: true,
                how: How::Asserted,
                detail: said.into(),
                looked_at: Vec::new(),
            }];
        }
        let numbered = self.services.iter().enumerate();
        let groups = by_node(numbered.map(|one| (one.1.intent.node.clone(), one)));
        let each = |(index, watched): (usize, &Watched)| (index, self.stopped_one(watched));
        let judged = at_once(groups, |group| group.into_iter().map(each).collect::<Vec<_>>());
        let mut judged: Vec<(usize, Evidence)> = judged.into_iter().flatten().collect();
        judged.sort_by_key(|(index, _)| *index);
        judged.into_iter().map(|(_, evidence)| evidence).collect()
    }

    fn stopped_one(&self, watched: &Watched) -> Evidence {
        let (mut held, how, mut detail) = self.observe(watched);
        if self.is_over() {
            held = false;
            let limit: Duration = self.plan.max_downtime;
            // A status command may have printed nothing.
            if !detail.is_empty() {
                detail.push_str("; ");
            }
            detail.push_str(&format!(
                "it was due to run again after the longest downtime of {}",
                human_duration(limit)
            ));
        }
        for clock in self.clocks.iter().filter(|clock| clock.node == watched.intent.node) {
            detail.push_str(&format!("; {}", clock.said()));
        }
        Evidence {
            check: CHECK.into(),
            subject: watched.intent.service.clone(),
            node: watched.intent.node.clone(),
            scope: scope(&watched.intent.how).into(),
            held,
            how,
            detail,
            looked_at: Vec::new(),
        }
    }

    fn observe(&self, watched: &Watched) -> (bool, How, String) {
        let seen = |held: bool, detail: String| (held, How::Observed, detail);
        // `--already-stopped` says it, as `[evidence] assert` does.
        let asserted = self.plan.mode == Mode::AlreadyStopped || self.plan.rules.asserts(CHECK);
        let status = match ask(&*watched.service, &*self.context.clock) {
            Ok(status) => status,
            Err(error) => return unseen(asserted, &chain(&error)),
        };
        match &status.state {
            ServiceState::Running => return seen(false, format!("it runs: {}", status.detail)),
            ServiceState::Unknown(what) => return unseen(asserted, what),
            ServiceState::Stopped => {}
        }
        let first = watched.after_stop.as_ref().unwrap_or(&watched.was);
        let same_run = watched.was.invocation_id == first.invocation_id
            // systemd may forget a unit that is stopped.
            || first.invocation_id.is_none();
        if !same_run
            || first.invocation_id != status.invocation_id
            || first.active_enter != status.active_enter
        {
            return seen(false, "it was started and stopped again in between".into());
        }
        match watched.service.cgroup_processes() {
            Ok(Some(pids)) if !pids.is_empty() => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                seen(false, format!("processes are left in its control group: {}", few(&pids)))
            }
            Ok(Some(_)) => seen(true, format!("{}, its control group is empty", status.detail)),
            Ok(None) if watched.ran() && is_unit(&watched.intent.how) => {
                unseen(asserted, "its control group is out of sight")
            }
            Ok(None) => seen(true, status.detail),
            Err(error) => unseen(asserted, &chain(&error)),
        }
    }
}

const fn is_unit(how: &ServiceKind) -> bool {
    matches!(how, ServiceKind::Systemd { .. })
}
