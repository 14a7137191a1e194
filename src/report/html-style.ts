/** The style of a report's page; every text has a contrast of at least 4.5 with what it stands on. */
export const htmlStyle = `
:root{--text:#1c1e21;--back:#fff;--soft:#f3f4f6;--line:#d5d8dd;--dim:#565d67;--accent:#006b4f;--mark:#fff0c2}
@media(prefers-color-scheme:dark){:root{--text:#e6e6e6;--back:#16181c;--soft:#22252b;--line:#3a3f47;--dim:#a5acb6;--accent:#4fd1a5;--mark:#4a3b00}}
*{box-sizing:border-box}
body{margin:0;color:var(--text);background:var(--back);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 48px}
h1{margin:0 0 8px;font-size:28px}h2{margin:36px 0 12px;font-size:20px}h3{margin:0 0 6px;font-size:14px}
.summary,section>p{max-width:80ch;margin:0 0 12px;color:var(--dim);overflow-wrap:anywhere}
.highlights{display:flex;flex-wrap:wrap;gap:12px;margin:24px 0 0}
.highlights div{flex:1 1 150px;padding:12px 16px;background:var(--soft);border-radius:8px}
dt{font-size:13px;color:var(--dim)}dd{margin:2px 0 0;font-size:24px;font-weight:600;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
figure{margin:0;padding:8px;border:1px solid var(--line);border-radius:8px;min-width:0}svg{display:block;width:100%;height:auto}
details{margin-bottom:20px}figure details{margin:8px 0 0}summary{cursor:pointer;color:var(--dim);font-size:14px}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.scroll{overflow-x:auto;margin-bottom:20px}table{border-collapse:collapse;min-width:320px}
caption{text-align:left;padding-bottom:6px;color:var(--dim)}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:anywhere;max-width:52ch}
tbody th{font-weight:400}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.differs{background:var(--mark);padding-left:8px}
article{margin-bottom:20px;border:1px solid var(--line);border-radius:8px;overflow:hidden}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}
.prompt{padding:10px 14px;background:var(--soft)}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.answer{padding:12px 14px;border-top:3px solid transparent;min-width:0}.preferred{border-top-color:var(--accent)}
.note{font-weight:400;font-size:13px;color:var(--dim)}.best{color:var(--accent)}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
footer{margin-top:40px;color:var(--dim);font-size:13px;overflow-wrap:anywhere}
`.trim()
