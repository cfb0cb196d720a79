// What other scripts bring into a page.
declare const Plotly: any;
interface Window { Plotly: any }
