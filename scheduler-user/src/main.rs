//! stub
fn main() {
    let instance = treeline::instance::Instance::new("probe").expect("name");
    let r = treeline::datapath::Datapath::open_or_load(&instance, &Default::default());
    match r { Ok((d,o)) => { eprintln!("{o:?} {:?} {:?}", d.active(), d.counters().map(|c|c.len())); let mut t = Box::new(scheduler_common::tree::Table{..scheduler_common::tree::Table::EMPTY}); t.generation=3; t.trees=1; t.node_count=1; t.nodes[0]=scheduler_common::tree::Node::leaf(0, Default::default()); eprintln!("{:?}", d.activate(&t)); eprintln!("{:?}", d.active()); d.unload().expect("unload"); }
      Err(e) => { let mut e: &dyn std::error::Error=&e; loop { eprintln!("{e}"); match e.source() {Some(s)=>e=s,None=>break} } } }
}
