#include "driver/task/plan_network.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// A name that every program accepts: letters, digits and '-', not at the ends.
std::string NameFrom(std::string name) {
  for (char& c : name) {
    if (!absl::ascii_isalnum(c)) c = '-';
  }
  name.resize(std::min(name.size(), kMaxHostNameBytes));
  while (absl::EndsWith(name, "-")) name.pop_back();
  name = std::string(name.substr(std::min(name.find_first_not_of('-'), name.size())));
  return name.empty() ? "agent" : name;
}

std::string DefaultName(const NomadTask& task) {
  const auto alloc_name = task.env().find("NOMAD_ALLOC_NAME");
  return NameFrom(alloc_name != task.env().end() ? alloc_name->second : task.name());
}

// Nomad's comes with the network namespace, and the tasks of a group share it.
absl::StatusOr<std::string> HostName(const PlanInput& input) {
  const std::string& asked = input.options.isolation.hostname;
  const std::string& networks = input.task.network_isolation_spec().hostsconfig().hostname();
  if (!asked.empty() && !networks.empty() && asked != networks) {
    return Invalid("hostname: ", Quoted(asked), ", but the group's network has the host name ",
                   Quoted(networks), "; remove one of them");
  }
  if (!networks.empty()) return NameFrom(networks);
  return asked.empty() ? DefaultName(input.task) : asked;
}

std::string HostsFile(const NomadTask& task) {
  const auto& hosts = task.network_isolation_spec().hostsconfig();
  if (hosts.hostname().empty() || hosts.address().empty()) return "";
  return absl::StrCat("127.0.0.1\tlocalhost\n::1\tlocalhost\n", hosts.address(), "\t",
                      hosts.hostname(), "\n");
}

absl::StatusOr<std::string> ExtraHosts(const std::vector<std::string>& hosts) {
  std::string lines;
  for (const std::string& text : hosts) {
    ASSIGN_OR_RETURN(const ExtraHost host, ParseExtraHost(text), "extra_hosts");
    absl::StrAppend(&lines, host.address, "\t", host.name, "\n");
  }
  return lines;
}

// What resolv.conf(5) says in lines of one keyword.
std::vector<std::string> LinesOf(absl::string_view resolv_conf,
                                 const std::vector<std::string>& keywords) {
  std::vector<std::string> found;
  for (const absl::string_view line : absl::StrSplit(resolv_conf, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.size() < 2 ||
        std::find(keywords.begin(), keywords.end(), words.front()) == keywords.end()) {
      continue;
    }
    found.push_back(absl::StrJoin(words, " "));
  }
  return found;
}

// Nomad's exec driver takes what the job leaves out from the host (resolvconf/mount.go).
void AppendFromHost(absl::string_view host, const std::vector<std::string>& keywords,
                    std::string& content) {
  for (const std::string& line : LinesOf(host, keywords)) absl::StrAppend(&content, line, "\n");
}

}  // namespace

std::string ResolvConf(const NomadTask& task, absl::string_view host_resolv_conf) {
  const auto& dns = task.dns();
  if (dns.servers().empty() && dns.searches().empty() && dns.options().empty()) return "";
  std::string content;
  for (const std::string& server : dns.servers()) {
    absl::StrAppend(&content, "nameserver ", server, "\n");
  }
  if (dns.servers().empty()) AppendFromHost(host_resolv_conf, {"nameserver"}, content);
  if (!dns.searches().empty()) {
    absl::StrAppend(&content, "search ", absl::StrJoin(dns.searches(), " "), "\n");
  } else {
    AppendFromHost(host_resolv_conf, {"search", "domain"}, content);
  }
  if (!dns.options().empty()) {
    absl::StrAppend(&content, "options ", absl::StrJoin(dns.options(), " "), "\n");
  } else {
    AppendFromHost(host_resolv_conf, {"options"}, content);
  }
  return content;
}

absl::Status PlanNetwork(const PlanInput& input, pb::SandboxSpec& sandbox) {
  const std::string& mode = input.options.isolation.network_mode;
  const std::string& nomads = input.task.network_isolation_spec().path();
  if (!mode.empty() && !nomads.empty()) {
    return Invalid("network_mode: ", Quoted(mode),
                   ", but the group's network block already gives the task a network of its own; "
                   "remove one of them");
  }
  sandbox.set_network_namespace(nomads);
  sandbox.set_own_network(mode == kNetworkNone);
  return absl::OkStatus();
}

absl::Status PlanNames(const PlanInput& input, HostRootfs& rootfs) {
  ASSIGN_OR_RETURN(rootfs.hostname, HostName(input));
  ASSIGN_OR_RETURN(rootfs.extra_hosts, ExtraHosts(input.options.isolation.extra_hosts));
  rootfs.resolv_conf_content = ResolvConf(input.task, input.host.resolv_conf);
  rootfs.hosts_content = HostsFile(input.task);
  return absl::OkStatus();
}

}  // namespace jenkins_agent
