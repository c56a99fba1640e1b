//! What few packets do: messages end and begin, the model is asked, samples leave.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use scheduler_common::{
    counter::{Counter, Counts},
    features::Features,
    flow::{Flow, Story, half_flags},
    history::HistoryEntry,
    sample::Hook,
    settings::SampleBudget,
};
use scheduler_ebpf::{
    features::{self, Socket},
    flow::{self, Cause, Ended, Step, event},
    history::{self, Place},
    parse::Headers,
    verdict,
};

use crate::{
    clock, count,
    maps::HISTORY,
    path::Known,
    sample::{Report, Sampler},
    socket::Sender,
    tree,
};

/// A packet that needs more than its flow's cache line.
pub(crate) struct Page<'a> {
    pub(crate) known: Known,
    pub(crate) headers: &'a Headers,
    pub(crate) flow: &'a mut Flow,
    pub(crate) story: &'a mut Story,
    pub(crate) step: &'a mut Step,
    pub(crate) socket: &'a mut Socket,
    pub(crate) features: &'a mut Features,
}

impl Page<'_> {
    /// Everything behind [`flow::advance`].
    #[inline(always)]
    pub(crate) fn turn<C: EbpfContext + Sender>(
        &mut self,
        ctx: &C,
        counts: &mut Counts,
        budget: &mut SampleBudget,
    ) {
        let now_ns = clock::fine_ns();
        flow::turn_page(
            (self.flow, self.story),
            self.headers,
            self.known.settings,
            now_ns,
            self.step,
        );
        let mut report = Report {
            counts,
            sampler: Sampler::new(
                self.flow.tag,
                self.known,
                now_ns,
                history::network(self.headers, self.known.hook),
            ),
            budget,
        };
        let half = self.step.half & 1;
        let (own_end, other_end) = (self.step.own_end, self.step.other_end);
        self.ended(half ^ 1, other_end, &mut report);
        if self.step.has(event::STARTED) {
            count::one(report.counts, Counter::MessagesStarted);
            self.recall();
        }
        if self.step.has(event::DECISION) {
            self.decide(ctx, &mut report);
        }
        // After the decision: a FIN ends the message that it has just been part of.
        self.ended(half, own_end, &mut report);
    }

    /// Looks up what messages like the one that begins were.
    #[inline(always)]
    fn recall(&mut self) {
        let half = self.step.half;
        let [service, network] = self.places(half);
        self.story.halves[half as usize & 1].history_log2_q8 = [mean(service), mean(network)];
    }

    /// Adds the message of `half` that ended to what others like it were, and reports it.
    #[inline(always)]
    fn ended(&mut self, half: u32, ended: Ended, report: &mut Report<'_>) {
        let counter = match ended.cause {
            Cause::None => return,
            Cause::Turn => Counter::EndedByTurn,
            Cause::Gap => Counter::EndedByGap,
            Cause::Close => Counter::EndedByClose,
        };
        count::one(report.counts, counter);
        let [service, network] = self.places(half);
        learn(service, ended.bytes);
        learn(network, ended.bytes);
        report.message_end(
            half ^ self.step.half,
            &self.flow.halves[half as usize & 1],
            (half, ended),
        );
    }

    #[inline(always)]
    fn places(&self, half: u32) -> [Place; 2] {
        history::places(
            self.headers,
            self.story,
            (half, self.step.half),
            (self.known.hook, self.known.ifindex),
            self.known.hashing,
        )
    }

    /// Describes the packet, asks the model on egress, and reports both.
    ///
    /// While the answer could change nothing, the model is asked for the sake of samples only.
    #[inline(always)]
    fn decide<C: EbpfContext + Sender>(&mut self, ctx: &C, report: &mut Report<'_>) {
        count::one(report.counts, Counter::DecisionPoints);
        let half = self.step.half as usize & 1;
        let sampled = report.sampler.is_chosen();
        let bytes = self.flow.halves[half].bytes;
        let matters = verdict::asks(bytes, self.known.settings);
        let asks = matches!(self.known.hook, Hook::Egress) && (matters || sampled);
        if asks || sampled {
            ctx.ask(self.headers.protocol, self.socket);
            features::extract(
                self.headers,
                (self.flow, self.story),
                (self.step, self.socket),
                self.features,
            );
        }
        let mut predicted_log2_q8 = 0;
        let mut generation = 0;
        if asks {
            let (own, page) = (&mut self.flow.halves[half], &mut self.story.halves[half]);
            match tree::predict(self.features, report.counts) {
                Some(prediction) => {
                    let to_come = prediction.leaf.bytes_to_come();
                    generation = prediction.generation;
                    predicted_log2_q8 = u32::from(prediction.leaf.log2_q8);
                    if matters {
                        page.predicted_bytes = flow::saturate(u64::from(own.bytes) + to_come);
                        own.generation_slot = count::own_slot(report.counts, generation);
                        own.flags |= half_flags::PREDICTED;
                    }
                }
                None => {
                    page.predicted_bytes = 0;
                    own.flags &= !half_flags::PREDICTED;
                }
            }
            log_new_generation(ctx, report.budget, generation);
        }
        let (own, page) = (&mut self.flow.halves[half], &self.story.halves[half]);
        verdict::settle(own, page, self.known.settings);
        if sampled {
            report.decision(self, (generation, predicted_log2_q8));
        }
    }
}

/// Mean size of the messages at `place`; 0 if there was none.
#[inline(always)]
fn mean(place: Place) -> u16 {
    match HISTORY.get(place.index) {
        Some(entry) if entry.tag == place.tag => entry.log2_q8,
        _ => 0,
    }
}

/// Adds a message to those at `place`, which are others' until now if the tag is.
#[inline(always)]
fn learn(place: Place, bytes: u32) {
    let Some(entry) = HISTORY.get_ptr_mut(place.index) else {
        return;
    };
    // SAFETY: map values live as long as the program runs; another CPU may write the same integers, and one of
    // the two messages is then not in the mean.
    let entry = unsafe { &mut *entry };
    if entry.tag != place.tag {
        *entry = HistoryEntry {
            tag: place.tag,
            log2_q8: 0,
            messages: 0,
        };
    }
    entry.add(bytes);
}

/// One line a CPU when a generation is first seen there.
#[inline(always)]
fn log_new_generation<C: EbpfContext>(ctx: &C, budget: &mut SampleBudget, generation: u32) {
    if budget.logged_generation != generation {
        budget.logged_generation = generation;
        info!(ctx, "generation {} classifies on this CPU", generation);
    }
}
