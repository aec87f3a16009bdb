#include "driver/nomad/print.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "driver/base/text_table.h"
#include "driver/base/utf8.h"
#include "driver/nomad/metric.h"
#include "driver/nomad/remedies.h"

namespace jenkins_agent::nomad {
namespace {

constexpr int kBarWidth = 10;     // characters
constexpr size_t kMostNames = 5;  // nodes named in one line

using Row = std::vector<std::string>;
using Rows = std::vector<Row>;
using OrderedJson = nlohmann::ordered_json;

std::string Plural(int64_t count, absl::string_view one) {
  return absl::StrCat(count, " ", std::string(one), count == 1 ? "" : "s");
}

std::string Bold(const std::string& text, const TextOptions& options) {
  return options.terminal ? absl::StrCat("\x1b[1m", text, "\x1b[0m") : text;
}

std::string Bar(const Figure& figure) {
  if (figure.total <= 0) return "";
  const double share =
      static_cast<double>(figure.reserved + figure.allocated) / static_cast<double>(figure.total);
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kBarWidth));
  std::string bar;
  for (int i = 0; i < kBarWidth; ++i) bar += i < full ? "█" : "░";
  return bar;
}

std::string Name(const Figure& figure) {
  return figure.unit.empty() ? figure.name : absl::StrCat(figure.name, " ", figure.unit);
}

std::string AskText(const std::vector<Figure>& ask) {
  std::vector<std::string> parts;
  for (const Figure& figure : ask) {
    if (figure.resource == Resource::kStaticPort)
      parts.push_back(absl::StrCat("static ", figure.name));
    else if (figure.unit.empty())
      parts.push_back(absl::StrCat(figure.asked, " ", figure.name));
    else
      parts.push_back(absl::StrCat(figure.asked, " ", figure.unit, " ", figure.name));
  }
  return absl::StrJoin(parts, ", ");
}

std::string VerdictText(const GroupExplanation& group) {
  switch (group.verdict) {
    case Verdict::kPlaced:
      return "all of it is placed";
    case Verdict::kFitsNow:
      return absl::StrCat("it fits on ", Plain(group.nodes.front().name),
                          " by what can be seen: Nomad has not looked again yet, or counts what "
                          "is not visible here");
    case Verdict::kNoRoom:
      return "it does not fit now; it would once others leave";
    case Verdict::kNeverFits:
      return "it never fits: it asks for more than any of its nodes has, even empty";
    case Verdict::kNoCandidate:
      return "no node may take it, whatever room there is";
  }
  return "";
}

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPlaced:
      return "placed";
    case Verdict::kFitsNow:
      return "fits_now";
    case Verdict::kNoRoom:
      return "no_room";
    case Verdict::kNeverFits:
      return "never_fits";
    case Verdict::kNoCandidate:
      return "no_candidate";
  }
  return "";
}

void AppendLines(const std::string& heading, const std::vector<std::string>& lines,
                 std::string& text) {
  if (lines.empty()) return;
  absl::StrAppend(&text, heading, "\n");
  for (const std::string& line : lines) absl::StrAppend(&text, "  ", Plain(line), "\n");
  text += "\n";
}

std::vector<std::string> Bullets(std::vector<std::string> lines) {
  for (std::string& line : lines) line = absl::StrCat("* ", line);
  return lines;
}

void AppendNomadsWords(const Explanation& explanation, const GroupExplanation& group,
                       std::string& text) {
  const std::vector<std::string> then =
      group.has_nomad_then ? MetricLines(group.nomad_then) : std::vector<std::string>();
  AppendLines(absl::StrCat("Nomad said ",
                           HumanDuration(std::chrono::seconds(explanation.evaluation_age_seconds)),
                           " ago (evaluation ", Plain(explanation.evaluation.substr(0, 8)), ", ",
                           Plain(explanation.evaluation_status), "):"),
              Bullets(then), text);
  const std::vector<std::string> now = MetricLines(group.nomad_now);
  if (group.verdict != Verdict::kFitsNow && now != then) {
    AppendLines("By the state of now it would say:", Bullets(now), text);
  }
}

size_t Widest(absl::string_view text) {
  size_t widest = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    widest = std::max(widest, CountCharacters(line));
  }
  return widest;
}

void AppendFigures(const GroupExplanation& group, const TextOptions& options, std::string& text) {
  Rows rows = {{"Node", "Resource", "Asked", "Total", "Reserved", "Allocated", "Free", "Short by",
                "In use"}};
  std::vector<bool> right = {false, false, true, true, true, true, true, true, true};
  if (options.terminal) {
    rows[0].emplace_back("Taken");
    right.push_back(false);
  }
  size_t shown = 0, with_room = 0;
  for (const NodeReport& node : group.nodes) {
    if (node.standing != Standing::kFits && node.standing != Standing::kNoRoom) continue;
    ++with_room;
    if (shown == options.max_nodes) continue;
    ++shown;
    bool first = true;
    for (const Figure& figure : node.figures) {
      Row row = {first ? Plain(node.name) : "",
                 Plain(Name(figure)),
                 absl::StrCat(figure.asked),
                 absl::StrCat(figure.total),
                 absl::StrCat(figure.reserved),
                 absl::StrCat(figure.allocated),
                 absl::StrCat(figure.free),
                 figure.short_by > 0 ? absl::StrCat(figure.short_by) : "-",
                 figure.in_use ? absl::StrCat(*figure.in_use) : "-"};
      if (options.terminal) row.push_back(Bar(figure));
      rows.push_back(std::move(row));
      first = false;
    }
  }
  if (shown == 0) return;
  std::string table = Table(rows, right, "");
  if (options.terminal && options.width > 0 && Widest(table) > options.width) {
    for (Row& row : rows) row.pop_back();
    table = Table(rows, right, "");
  }
  text += table;
  if (with_room > shown) {
    absl::StrAppend(&text, "and ", with_room - shown,
                    " nodes that are short of more (--json has them all)\n");
  }
  text += "\n";
}

std::string NameList(const std::vector<std::string>& names) {
  if (names.size() <= kMostNames) return absl::StrJoin(names, ", ");
  return absl::StrCat(absl::StrJoin(names.begin(), names.begin() + kMostNames, ", "), " and ",
                      names.size() - kMostNames, " more");
}

// One line for all nodes with the same reasons.
std::vector<std::string> ReasonLines(const std::vector<NodeReport>& nodes, Standing standing) {
  std::vector<std::pair<std::string, std::vector<std::string>>> by_reason;
  std::map<std::string, size_t> index;
  for (const NodeReport& node : nodes) {
    if (node.standing != standing) continue;
    std::vector<std::string> texts;
    for (const Reason& reason : node.reasons) texts.push_back(reason.text);
    const std::string key = absl::StrJoin(texts, "; ");
    const auto [found, is_new] = index.emplace(key, by_reason.size());
    if (is_new) by_reason.push_back({key, {}});
    by_reason[found->second].second.push_back(node.name);
  }
  std::vector<std::string> lines;
  for (const auto& [reason, names] : by_reason) {
    lines.push_back(absl::StrCat(NameList(names), ": ", reason));
  }
  return lines;
}

const char* ResourceName(Resource resource) {
  switch (resource) {
    case Resource::kCpu:
      return "cpu";
    case Resource::kCores:
      return "cores";
    case Resource::kMemory:
      return "memory";
    case Resource::kMemoryMax:
      return "memory_max";
    case Resource::kDisk:
      return "disk";
    case Resource::kStaticPort:
      return "static_port";
    case Resource::kDynamicPorts:
      return "dynamic_ports";
    case Resource::kDevice:
      return "device";
    case Resource::kAllocations:
      return "allocations";
  }
  return "";
}

void AppendHolders(const GroupExplanation& group, const TextOptions& options, std::string& text) {
  if (group.holders.empty()) return;
  Rows rows = {
      {"Node", "Resource", "Holds", "In use", "Job", "Namespace", "Allocation", "Age", "Status"}};
  for (const Holder& holder : group.holders) {
    rows.push_back({Plain(holder.node), ResourceName(holder.resource),
                    absl::StrCat(holder.amount, holder.unit.empty() ? "" : " ", holder.unit),
                    holder.in_use ? absl::StrCat(*holder.in_use) : "-", Plain(holder.job),
                    Plain(holder.name_space), Plain(holder.allocation.substr(0, 8)),
                    HumanDuration(std::chrono::seconds(holder.age_seconds)),
                    absl::StrCat(Plain(holder.client_status),
                                 holder.stopping ? ", told to stop and not yet gone" : "")});
  }
  absl::StrAppend(&text, Bold("Who holds it", options), "\n",
                  Table(rows, {false, false, true, true, false, false, false, true, false}, ""),
                  "\n");
}

const char* CheckText(const Remedy& remedy) {
  switch (remedy.check) {
    case Check::kPlaces:
      return "checked: Nomad's plan places it";
    case Check::kPlacesSome:
      return "checked: Nomad's plan places a part";
    case Check::kPlacesNone:
      return "checked: Nomad's plan still does NOT place it";
    case Check::kUnchecked:
      return "unchecked";
  }
  return "";
}

const char* CheckName(Check check) {
  switch (check) {
    case Check::kPlaces:
      return "places";
    case Check::kPlacesSome:
      return "places_some";
    case Check::kPlacesNone:
      return "places_none";
    case Check::kUnchecked:
      return "unchecked";
  }
  return "";
}

void AppendRemedies(const GroupExplanation& group, const TextOptions& options, std::string& text) {
  if (group.remedies.empty()) return;
  absl::StrAppend(&text, Bold("What would help", options), " (any one of)\n");
  int number = 0;
  for (const Remedy& remedy : group.remedies) {
    absl::StrAppend(&text, "  ", ++number, ". ", Plain(remedy.text), "\n     [", CheckText(remedy),
                    remedy.check_text.empty() ? "" : ": ", Plain(remedy.check_text), "]\n");
  }
  text += "\n";
}

// Nomad forces a try only where the reschedule block allows tries at all (nomad/job_endpoint.go,
// Evaluate).
std::string GivenUpText(const Explanation& explanation, const GroupExplanation& group) {
  if (group.given_up == 0) return "";
  const std::string command =
      EvaluateCommand(explanation.job, explanation.name_space, "-force-reschedule");
  return absl::StrCat(Plural(group.given_up, "allocation"), " failed, and Nomad tries no more: ",
                      group.reschedules ? "the tries of the group's reschedule block are used up"
                                        : "the group's reschedule block allows no other try",
                      ". nomad alloc status says why; then ",
                      group.reschedules ? Plain(command) : "stop the job and run it again", ".\n");
}

std::string GroupText(const Explanation& explanation, const GroupExplanation& group,
                      const TextOptions& options) {
  std::string text;
  absl::StrAppend(
      &text,
      Bold(absl::StrCat("Job ", Plain(explanation.job), ", group ", Plain(group.group)), options),
      " (", Plain(explanation.job_type), ", namespace ", Plain(explanation.name_space), ")");
  if (group.verdict == Verdict::kPlaced) {
    absl::StrAppend(&text, ": nothing waits to be placed.\n");
    return text + GivenUpText(explanation, group);
  }
  absl::StrAppend(&text, ": ", group.unplaced, " of ", Plural(group.count, "allocation"),
                  group.unplaced == 1 ? " waits.\n\n" : " wait.\n\n");
  AppendNomadsWords(explanation, group, text);
  absl::StrAppend(&text, "Each asks for ", Plain(AskText(group.ask)), ".\n",
                  "Verdict: ", Bold(VerdictText(group), options), ".\n\n");
  AppendFigures(group, options, text);
  AppendLines("Excluded by what the job asks for:", ReasonLines(group.nodes, Standing::kFiltered),
              text);
  AppendLines("Left out by Nomad without a word:", ReasonLines(group.nodes, Standing::kLeftOut),
              text);
  AppendHolders(group, options, text);
  AppendRemedies(group, options, text);
  absl::StrAppend(&text, GivenUpText(explanation, group));
  AppendLines("Note:", group.notes, text);
  return text;
}

OrderedJson MetricJson(const Metric& metric) {
  return {{"nodes_evaluated", metric.nodes_evaluated},
          {"nodes_filtered", metric.nodes_filtered},
          {"nodes_exhausted", metric.nodes_exhausted},
          {"coalesced_failures", metric.coalesced_failures},
          {"constraint_filtered", metric.constraint_filtered},
          {"dimension_exhausted", metric.dimension_exhausted},
          {"class_filtered", metric.class_filtered},
          {"class_exhausted", metric.class_exhausted},
          {"text", MetricLines(metric)}};
}

OrderedJson FigureJson(const Figure& figure) {
  OrderedJson json = {{"resource", ResourceName(figure.resource)},
                      {"name", figure.name},
                      {"unit", figure.unit},
                      {"asked", figure.asked},
                      {"total", figure.total},
                      {"reserved", figure.reserved},
                      {"allocated", figure.allocated},
                      {"free", figure.free},
                      {"short_by", figure.short_by}};
  if (figure.in_use) json["in_use"] = *figure.in_use;
  return json;
}

const char* StandingName(Standing standing) {
  switch (standing) {
    case Standing::kFits:
      return "fits";
    case Standing::kNoRoom:
      return "no_room";
    case Standing::kFiltered:
      return "filtered";
    case Standing::kLeftOut:
      return "left_out";
  }
  return "";
}

OrderedJson NodeJson(const NodeReport& node) {
  OrderedJson json = {{"id", node.id},
                      {"name", node.name},
                      {"datacenter", node.datacenter},
                      {"pool", node.pool},
                      {"class", node.node_class},
                      {"standing", StandingName(node.standing)},
                      {"nomad_reason", node.nomad_reason},
                      {"room_when_empty", node.room_when_empty},
                      {"reasons", OrderedJson::array()},
                      {"figures", OrderedJson::array()}};
  for (const Reason& reason : node.reasons) json["reasons"].push_back(reason.text);
  for (const Figure& figure : node.figures) json["figures"].push_back(FigureJson(figure));
  return json;
}

OrderedJson HolderJson(const Holder& holder) {
  OrderedJson json = {{"node", holder.node},
                      {"resource", ResourceName(holder.resource)},
                      {"unit", holder.unit},
                      {"amount", holder.amount},
                      {"allocation", holder.allocation},
                      {"job", holder.job},
                      {"namespace", holder.name_space},
                      {"group", holder.group},
                      {"age_seconds", holder.age_seconds},
                      {"status", holder.client_status},
                      {"stopping", holder.stopping}};
  if (holder.in_use) json["in_use"] = *holder.in_use;
  return json;
}

OrderedJson ChangeJson(const JobChange& change) {
  OrderedJson json = {{"group", change.group}};
  for (const auto& [name, task] : change.tasks) {
    OrderedJson& resources = json["tasks"][name];
    if (task.cpu_mhz) resources["cpu"] = *task.cpu_mhz;
    if (task.cores) resources["cores"] = *task.cores;
    if (task.memory_mb) resources["memory"] = *task.memory_mb;
  }
  if (change.disk_mb) json["disk"] = *change.disk_mb;
  if (change.count) json["count"] = *change.count;
  if (!change.add_datacenter.empty()) json["add_datacenter"] = change.add_datacenter;
  if (!change.node_pool.empty()) json["node_pool"] = change.node_pool;
  if (!change.drop_constraint.empty()) json["drop_constraint"] = change.drop_constraint;
  if (!change.dynamic_port.empty()) json["dynamic_port"] = change.dynamic_port;
  return json;
}

OrderedJson RemedyJson(const Remedy& remedy) {
  OrderedJson json = {
      {"text", remedy.text}, {"check", CheckName(remedy.check)}, {"check_text", remedy.check_text}};
  if (remedy.change) json["change"] = ChangeJson(*remedy.change);
  return json;
}

OrderedJson GroupJson(const GroupExplanation& group) {
  OrderedJson json = {{"group", group.group},
                      {"count", group.count},
                      {"unplaced", group.unplaced},
                      {"given_up", group.given_up},
                      {"verdict", VerdictName(group.verdict)}};
  if (group.verdict == Verdict::kPlaced) return json;
  if (group.has_nomad_then) json["nomad_then"] = MetricJson(group.nomad_then);
  json["nomad_now"] = MetricJson(group.nomad_now);
  for (const Figure& figure : group.ask) {
    json["ask"].push_back({{"name", figure.name}, {"unit", figure.unit}, {"asked", figure.asked}});
  }
  json["nodes"] = OrderedJson::array();
  for (const NodeReport& node : group.nodes) json["nodes"].push_back(NodeJson(node));
  json["holders"] = OrderedJson::array();
  for (const Holder& holder : group.holders) json["holders"].push_back(HolderJson(holder));
  json["remedies"] = OrderedJson::array();
  for (const Remedy& remedy : group.remedies) {
    json["remedies"].push_back(RemedyJson(remedy));
  }
  json["notes"] = group.notes;
  return json;
}

// Texts from elsewhere may be no UTF-8; they are shown with a mark instead of failing the answer.
std::string Dump(const OrderedJson& json) {
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string OfferText(const Demand& demand) {
  const NodeOffer& offer = demand.offer;
  if (offer.count == 0) {
    return "No number of nodes like those of this cluster would place all that lacks room.\n";
  }
  return absl::StrCat(Plural(offer.count, "more node"), " like ", Plain(offer.like), " (",
                      offer.cpu_mhz, " MHz, ", offer.memory_mb, " MB memory, ", offer.disk_mb,
                      " MB disk for jobs) would place all that lacks room.\n");
}

}  // namespace

std::string Table(const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& to_the_right, const std::string& indent) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], CountCharacters(row[i]));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line = indent;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - CountCharacters(row[i]), ' ');
      if (i > 0) line += "  ";
      line += to_the_right[i] ? padding + row[i] : row[i] + padding;
    }
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

std::string ExplanationText(const Explanation& explanation, const TextOptions& options) {
  std::string text;
  for (const GroupExplanation& group : explanation.groups) {
    absl::StrAppend(&text, GroupText(explanation, group, options));
  }
  AppendLines("Not all could be seen:", explanation.warnings, text);
  return text;
}

std::string ExplanationJson(const Explanation& explanation) {
  OrderedJson json = {{"job", explanation.job},
                      {"namespace", explanation.name_space},
                      {"type", explanation.job_type},
                      {"status", explanation.job_status},
                      {"blocked", explanation.blocked()},
                      {"evaluation", explanation.evaluation},
                      {"evaluation_status", explanation.evaluation_status},
                      {"evaluation_age_seconds", explanation.evaluation_age_seconds},
                      {"warnings", explanation.warnings},
                      {"groups", OrderedJson::array()}};
  for (const GroupExplanation& group : explanation.groups) {
    json["groups"].push_back(GroupJson(group));
  }
  return Dump(json);
}

std::string DemandText(const Demand& demand) {
  std::string text;
  if (demand.waiting.empty()) {
    text = "Nothing waits to be placed.\n";
  } else {
    Rows rows = {{"Job", "Namespace", "Group", "Waiting", "For", "MHz", "Cores", "MB", "Disk MB",
                  "Verdict", "Why"}};
    for (const WaitingGroup& group : demand.waiting) {
      rows.push_back({Plain(group.job), Plain(group.name_space), Plain(group.group),
                      absl::StrCat(group.unplaced),
                      HumanDuration(std::chrono::seconds(group.waiting_seconds)),
                      absl::StrCat(group.ask.amounts.cpu_mhz), absl::StrCat(group.ask.cores),
                      absl::StrCat(group.ask.amounts.memory_mb), absl::StrCat(group.ask.disk_mb),
                      VerdictName(group.verdict), Plain(group.why)});
    }
    text = Table(rows, {false, false, false, true, true, true, true, true, true, false, false}, "");
    absl::StrAppend(&text, "\n", Plural(demand.unplaced, "allocation"),
                    demand.unplaced == 1 ? " waits" : " wait", ", for ", demand.amounts.cpu_mhz,
                    " MHz, ", Plural(demand.cores, "core"), ", ", demand.amounts.memory_mb,
                    " MB memory and ", demand.disk_mb, " MB disk in all.\n");
    for (const auto& [name, count] : demand.lacking) {
      absl::StrAppend(&text, "  ", count, count == 1 ? " lacks " : " lack ", Plain(name), "\n");
    }
    if (demand.unplaced > demand.without_node + demand.fits_now) text += OfferText(demand);
    if (demand.fits_now > 0) {
      absl::StrAppend(&text, demand.fits_now, demand.fits_now == 1 ? " has" : " have",
                      " room by what can be seen, and Nomad has not looked again yet.\n");
    }
    if (demand.without_node > 0) {
      absl::StrAppend(&text, demand.without_node, demand.without_node == 1 ? " waits" : " wait",
                      " for something else than room.\n");
    }
  }
  if (!demand.warnings.empty()) text += "\n";
  AppendLines("Not all could be seen:", demand.warnings, text);
  return text;
}

std::string DemandJson(const Demand& demand) {
  OrderedJson json = {
      {"unplaced", demand.unplaced}, {"cpu_mhz", demand.amounts.cpu_mhz},
      {"cores", demand.cores},       {"memory_mb", demand.amounts.memory_mb},
      {"disk_mb", demand.disk_mb},   {"lacking", demand.lacking},
      {"fits_now", demand.fits_now}, {"for_something_else_than_room", demand.without_node},
      {"warnings", demand.warnings}};
  if (demand.offer.count > 0) {
    json["nodes_that_would_do"] = {{"count", demand.offer.count},
                                   {"like", demand.offer.like},
                                   {"cpu_mhz", demand.offer.cpu_mhz},
                                   {"memory_mb", demand.offer.memory_mb},
                                   {"disk_mb", demand.offer.disk_mb}};
  }
  json["waiting"] = OrderedJson::array();
  for (const WaitingGroup& group : demand.waiting) {
    json["waiting"].push_back({{"job", group.job},
                               {"namespace", group.name_space},
                               {"group", group.group},
                               {"unplaced", group.unplaced},
                               {"waiting_seconds", group.waiting_seconds},
                               {"verdict", VerdictName(group.verdict)},
                               {"why", group.why},
                               {"cpu_mhz", group.ask.amounts.cpu_mhz},
                               {"cores", group.ask.cores},
                               {"memory_mb", group.ask.amounts.memory_mb},
                               {"disk_mb", group.ask.disk_mb}});
  }
  return Dump(json);
}

}  // namespace jenkins_agent::nomad
