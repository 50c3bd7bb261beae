//! The demo on a terminal.

use super::nodes::DemoNodes;
use super::plain::{copies, routes};
use super::traffic::Traffic;
use crate::base::slot::SLOT_COUNT;
use crate::cli::observer::ClusterReport;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const KEYS: &str = "1-9, up, down: select   k: kill   r: restart   a: add a node   d: drain   q: quit";
const SHARE_CELLS: usize = 24;

/// What is on the screen.
struct Screen {
    report: ClusterReport,
    selected: usize,
    rate: f64,
    latencies: [u64; 3],
    looked: Instant,
    operations: u64,
}

/// Until `q`, or a signal.
pub(super) fn run(nodes: &mut DemoNodes, traffic: &Traffic, stop: &AtomicBool) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = serve(&mut terminal, nodes, traffic, stop);
    ratatui::restore();
    result
}

fn serve(
    terminal: &mut ratatui::DefaultTerminal,
    nodes: &mut DemoNodes,
    traffic: &Traffic,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut screen = Screen {
        report: ClusterReport::default(),
        selected: 0,
        rate: 0.0,
        latencies: [0; 3],
        looked: Instant::now(),
        operations: 0,
    };
    screen.look(nodes, traffic);
    while !stop.load(Ordering::Acquire) {
        terminal.draw(|frame| screen.draw(frame, nodes, traffic))?;
        if event::poll(LOOK_INTERVAL.saturating_sub(screen.looked.elapsed()))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                code => screen.on_key(code, nodes)?,
            }
        }
        if screen.looked.elapsed() >= LOOK_INTERVAL {
            screen.look(nodes, traffic);
        }
    }
    Ok(())
}

impl Screen {
    fn look(&mut self, nodes: &mut DemoNodes, traffic: &Traffic) {
        nodes.reap();
        traffic.update(nodes.addresses(), nodes.lost_slots());
        let operations = traffic.counters().operations.load(Ordering::Relaxed);
        self.rate = (operations - self.operations) as f64 / self.looked.elapsed().as_secs_f64().max(0.001);
        self.latencies = traffic.take_latencies();
        (self.operations, self.looked) = (operations, Instant::now());
        let Ok(report) = ClusterReport::look(&nodes.addresses()) else { return };
        for node in &report.nodes {
            let before = self.report.nodes.iter().find(|before| before.id == node.id);
            match before {
                Some(before) if before.state() != node.state() => {
                    nodes.note(format!("{} is {}", node.address, node.state()));
                }
                None if !self.report.nodes.is_empty() => nodes.note(format!("{} has joined", node.address)),
                _ => {}
            }
        }
        for before in &self.report.nodes {
            if report.nodes.iter().all(|node| node.id != before.id) {
                nodes.note(format!("{} has left", before.address));
            }
        }
        self.report = report;
    }

    fn on_key(&mut self, code: KeyCode, nodes: &mut DemoNodes) -> io::Result<()> {
        let last = self.report.nodes.len().saturating_sub(1);
        let port = self.report.nodes.get(self.selected).map(|node| node.address.port());
        match (code, port) {
            (KeyCode::Char(digit @ '1'..='9'), _) => self.selected = (digit as usize - '1' as usize).min(last),
            (KeyCode::Up, _) => self.selected = self.selected.saturating_sub(1),
            (KeyCode::Down, _) => self.selected = (self.selected + 1).min(last),
            (KeyCode::Char('a'), _) => drop(nodes.add()?),
            (KeyCode::Char('k'), Some(port)) => nodes.kill(port)?,
            (KeyCode::Char('d'), Some(port)) => nodes.drain(port)?,
            (KeyCode::Char('r'), Some(port)) if nodes.ended().contains(&port) => nodes.restart(port)?,
            (KeyCode::Char('r'), _) => {
                if let Some(port) = nodes.ended().last() {
                    nodes.restart(*port)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn draw(&self, frame: &mut Frame<'_>, nodes: &DemoNodes, traffic: &Traffic) {
        let rows = self.report.nodes.len() as u16 + 3;
        let [head, table, ways, events, foot] = Layout::vertical([
            Constraint::Length(4),
            Constraint::Length(rows),
            Constraint::Length(5),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let (word, reason) = self.report.health();
        let color = match word {
            "ok" => Color::Green,
            "degraded" => Color::Yellow,
            // Its copies are about to serve.
            _ if nodes.failover().is_under_way() => Color::Yellow,
            _ => Color::Red,
        };
        let [median, most, greatest] = self.latencies;
        let counters = traffic.counters();
        let summary = format!(
            " {word}: {reason}   {:.0} ops/s   p50 {median} us  p99 {most} us  max {greatest} us   {} redirects  {} failures",
            self.rate,
            counters.redirects.load(Ordering::Relaxed),
            counters.failures.load(Ordering::Relaxed),
        );
        let block = Block::bordered().title(" Starling ").border_style(Style::new().fg(color));
        let summary = vec![Line::from(summary), Line::from(format!(" {}", copies(&self.report, nodes)))];
        frame.render_widget(Paragraph::new(summary).block(block), head);
        frame.render_widget(self.nodes_table(nodes.failover().is_under_way()), table);
        let routes: Vec<Line<'_>> = routes(&self.report).into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(routes).block(Block::bordered().title(" key -> slot -> node ")), ways);
        let room = usize::from(events.height.saturating_sub(2));
        let latest = nodes.events().iter().rev().take(room).rev();
        let lines: Vec<Line<'_>> = latest.map(|event| Line::from(event.as_str())).collect();
        frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" events ")), events);
        frame.render_widget(Paragraph::new(KEYS).style(Style::new().add_modifier(Modifier::DIM)), foot);
    }

    fn nodes_table(&self, is_failing_over: bool) -> Table<'_> {
        let rows = self.report.nodes.iter().enumerate().map(|(index, node)| {
            let own = node.own.clone().unwrap_or_default();
            let filled = (node.slots.len() * SHARE_CELLS).div_ceil(SLOT_COUNT);
            let share = format!("{:5.1} % {}", node.slots.len() as f64 * 100.0 / SLOT_COUNT as f64, "█".repeat(filled));
            let style = match (index == self.selected, node.state()) {
                (true, _) => Style::new().add_modifier(Modifier::REVERSED),
                (_, "ok") => Style::new(),
                // Others serve what it served, or are about to.
                _ if node.slots.is_empty() || is_failing_over => Style::new().fg(Color::Yellow),
                _ => Style::new().fg(Color::Red),
            };
            let cells = [
                format!("{}", index + 1),
                node.address.to_string(),
                node.state().to_owned(),
                share,
                node.slots.len().to_string(),
                own.keys.to_string(),
                own.operations_per_second.to_string(),
                format!("{} K", own.used_memory / 1024),
            ];
            Row::new(cells.map(Cell::from)).style(style)
        });
        let widths = [2, 16, 12, SHARE_CELLS as u16 + 9, 7, 9, 8, 9].map(Constraint::Length);
        let head = Row::new(["", "node", "state", "share of the ring", "primary", "keys", "ops/s", "memory"]);
        Table::new(rows, widths)
            .header(head.style(Style::new().add_modifier(Modifier::BOLD)))
            .block(Block::bordered().title(" nodes "))
    }
}
