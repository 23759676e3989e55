// A server with only what it needs in .next/standalone.
export default { output: "standalone" };
