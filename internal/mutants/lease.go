package mutants

// leaseMutants take out the rules of the lease, the checkpoint and controls.
var leaseMutants = []Mutant{}
