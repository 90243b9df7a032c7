//! The reference backend: every op by its definition, in float64, on the CPU.

use super::backend::Available;
use super::{Backend, Graph, MemoryPlan, Node, Origin, Profile, Program, Ticket};
use crate::error::{Error, Result};
use crate::gpu::executor::Counters;
use crate::ops::{Array, Reference, Step, Value};
use crate::tensor::{Shape, TensorType};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

/// Runs graphs on the CPU by the ops' references. Slow, and the measure of
/// everything else.
#[derive(Debug, Default)]
pub struct CpuBackend {
    states: HashMap<String, Array>,
    programs: Vec<Graph>,
    pending: VecDeque<(Ticket, Array)>,
    tickets: u64,
}

impl CpuBackend {
    /// A backend without states.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self, name: &str) -> Result<&Array> {
        self.states
            .get(name)
            .ok_or_else(|| Error::Runtime(format!("there is no state {name:?}")))
    }

    fn step(&mut self, graph: &Graph, step: &Step) -> Result<()> {
        let mut results: HashMap<Value, Array> = HashMap::new();
        for node in graph.nodes() {
            if let Some(guard) = node.guard
                && self.load(graph, guard, &results)?.f()[0] != 0.0
            {
                continue;
            }
            self.execute(graph, node, step, &mut results)?;
        }
        Ok(())
    }

    fn execute(
        &mut self,
        graph: &Graph,
        node: &Node,
        step: &Step,
        results: &mut HashMap<Value, Array>,
    ) -> Result<()> {
        let mut updates = Vec::new();
        for index in node.op.updates() {
            updates.push(self.load(graph, node.inputs[*index], results)?.into_owned());
        }
        let mut outputs: Vec<Array> = node
            .outputs
            .iter()
            .map(|v| Array::zeros(graph.value(*v).ty.clone()))
            .collect();
        {
            let mut inputs = Vec::new();
            for (index, value) in node.inputs.iter().enumerate() {
                inputs.push(if node.op.updates().contains(&index) {
                    Cow::Owned(Array::zeros(TensorType::f32([0])))
                } else {
                    self.load(graph, *value, results)?
                });
            }
            if let Some(input) = node.op.alias() {
                outputs[0] = inputs[input].reshaped(graph.value(node.outputs[0]).ty.clone());
            } else {
                let inputs: Vec<&Array> = inputs.iter().map(AsRef::as_ref).collect();
                node.op.reference(Reference {
                    inputs: &inputs,
                    outputs: &mut outputs,
                    updates: &mut updates,
                    step,
                });
            }
        }
        for (index, array) in node.op.updates().iter().zip(updates) {
            self.save(graph, node.inputs[*index], array)?;
        }
        for (value, array) in node.outputs.iter().zip(outputs) {
            match graph.value(*value).store {
                Some(target) => {
                    self.save(graph, target, array.clone())?;
                    results.insert(*value, array);
                }
                None => {
                    results.insert(*value, array);
                }
            }
        }
        Ok(())
    }

    fn load<'a>(
        &'a self,
        graph: &Graph,
        value: Value,
        results: &'a HashMap<Value, Array>,
    ) -> Result<Cow<'a, Array>> {
        let info = graph.value(value);
        match &info.origin {
            Origin::Result => Ok(Cow::Borrowed(&results[&value])),
            Origin::State(name) => Ok(Cow::Borrowed(self.state(name)?)),
            Origin::View { of, offset } => {
                let Origin::State(name) = &graph.value(*of).origin else {
                    unreachable!("Graph::view only views states")
                };
                Ok(Cow::Owned(
                    self.state(name)?.slice(*offset, info.ty.clone()),
                ))
            }
        }
    }

    fn save(&mut self, graph: &Graph, target: Value, array: Array) -> Result<()> {
        let (name, offset) = match &graph.value(target).origin {
            Origin::State(name) => (name, 0),
            Origin::View { of, offset } => match &graph.value(*of).origin {
                Origin::State(name) => (name, *offset),
                _ => unreachable!("Graph::view only views states"),
            },
            Origin::Result => unreachable!("Graph::store only takes states and views"),
        };
        let state = self
            .states
            .get_mut(name)
            .ok_or_else(|| Error::Runtime(format!("there is no state {name:?}")))?;
        state.copy_from(offset, &array);
        Ok(())
    }
}

impl Backend for CpuBackend {
    fn describe(&self) -> String {
        "CPU reference path (float64 loops; slow, for checking)".into()
    }

    fn create(&mut self, name: &str, ty: &TensorType) -> Result<()> {
        self.states.insert(name.into(), Array::zeros(ty.clone()));
        Ok(())
    }

    fn write(&mut self, name: &str, data: &Array) -> Result<()> {
        let have = self.state(name)?.ty().clone();
        if have == *data.ty() {
            self.states.insert(name.into(), data.clone());
            return Ok(());
        }
        check_write(name, &have, data.ty())?;
        if let Some(state) = self.states.get_mut(name) {
            state.copy_from(0, data);
        }
        Ok(())
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        self.state(name).cloned()
    }

    fn plan(&self, graph: &Graph) -> Result<MemoryPlan> {
        Ok(MemoryPlan::new(graph, &vec![vec![]; graph.nodes().len()]))
    }

    fn compile(&mut self, graph: Graph) -> Result<Program> {
        for info in &graph.values {
            if let Origin::State(name) = &info.origin {
                check_write(name, self.state(name)?.ty(), &info.ty)?;
            }
        }
        self.programs.push(graph);
        Ok(Program(self.programs.len() - 1))
    }

    fn run(&mut self, program: Program, steps: &[Step]) -> Result<()> {
        let graph = std::mem::take(&mut self.programs[program.0]);
        let done = steps.iter().try_for_each(|step| self.step(&graph, step));
        self.programs[program.0] = graph;
        done
    }

    fn run_and_read(
        &mut self,
        program: Program,
        steps: &[Step],
        name: &str,
        len: usize,
    ) -> Result<Ticket> {
        self.run(program, steps)?;
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let state = self.state(name)?;
        let data = state.slice(0, first(name, state.ty(), len)?);
        self.pending.push_back((ticket, data));
        Ok(ticket)
    }

    fn take(&mut self, ticket: Ticket, _wait: bool) -> Result<Option<Array>> {
        let at = self.pending.iter().position(|(t, _)| *t == ticket);
        Ok(at
            .and_then(|i| self.pending.remove(i))
            .map(|(_, data)| data))
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn profile(&mut self, _: Program, _: &Step, _: usize) -> Result<Profile> {
        Err(Error::Usage(
            "--profile times GPU dispatches; the reference path has none: leave out --device cpu"
                .into(),
        ))
    }

    fn max_binding(&self) -> u64 {
        u64::MAX
    }

    fn available(&self) -> Available {
        Available::NoDevice
    }

    fn memory(&self) -> (u64, u64) {
        (self.states.values().map(|a| a.ty().bytes()).sum(), 0)
    }
}

/// Checks that data of type `found` fits the state `name` of type `have`.
pub(super) fn check_write(name: &str, have: &TensorType, found: &TensorType) -> Result<()> {
    if have.dtype == found.dtype && found.shape.len() <= have.shape.len() {
        return Ok(());
    }
    Err(Error::shape(
        format!("state {name}"),
        format!("expected at most {have}, found {found}"),
    ))
}

/// The type of the first `len` elements of the state `name` of type `have`.
pub(super) fn first(name: &str, have: &TensorType, len: usize) -> Result<TensorType> {
    let ty = TensorType {
        shape: Shape::from([len]),
        dtype: have.dtype,
    };
    check_write(name, have, &ty).map(|()| ty)
}
