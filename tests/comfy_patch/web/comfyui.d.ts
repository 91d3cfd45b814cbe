// What a ComfyUI serves beside our modules. What is used of it stands in frontend.js, feature by feature.
declare module "*/scripts/app.js" {
  export const app: any;
}
declare module "*/scripts/api.js" {
  export const api: any;
}
interface Window {
  LiteGraph?: any;
  LGraphBadge?: any;
  LGraphCanvas?: any;
}
