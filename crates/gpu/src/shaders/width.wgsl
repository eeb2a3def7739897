// Invocations of a workgroup: put before every kernel.
const WIDTH = 64u;

