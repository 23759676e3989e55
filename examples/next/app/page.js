export default function Page() {
  return <h1>A Next.js app</h1>;
}
