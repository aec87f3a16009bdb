#include "driver/nomad/ports.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "driver/nomad/constraint.h"

namespace jenkins_agent::nomad {
namespace {

bool Contains(const std::vector<std::pair<int, int>>& ranges, int port) {
  return std::any_of(ranges.begin(), ranges.end(), [port](const std::pair<int, int>& range) {
    return range.first <= port && port <= range.second;
  });
}

}  // namespace

std::vector<std::pair<int, int>> ParsePortRanges(const std::string& text) {
  std::vector<std::pair<int, int>> ranges;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.first, &first)) continue;
    if (ends.second.empty())
      last = first;
    else if (!absl::SimpleAtoi(ends.second, &last))
      continue;
    ranges.emplace_back(first, last);
  }
  return ranges;
}

PortUse::PortUse(const Node& node, const std::vector<const Allocation*>& allocations)
    : node_(node), reserved_(ParsePortRanges(node.reserved_ports)) {
  for (const Allocation* allocation : allocations) {
    for (const Port& port : allocation->holding.ports) {
      held_[port.host_ip].emplace(port.value, allocation);
    }
  }
}

std::vector<const HostAddress*> PortUse::Addresses(const std::string& host_network) const {
  const std::string alias =
      host_network.empty() ? "default" : Resolve(host_network, node_).value_or("");
  std::vector<const HostAddress*> addresses;
  for (const HostNetwork& network : node_.host_networks) {
    for (const HostAddress& address : network.addresses) {
      if (address.alias == alias) addresses.push_back(&address);
    }
  }
  return addresses;
}

bool PortUse::Reserved(const HostAddress& address, int port) const {
  return Contains(reserved_, port) || Contains(ParsePortRanges(address.reserved_ports), port);
}

const Allocation* PortUse::HolderOf(const HostAddress& address, int port) const {
  const auto ports = held_.find(address.address);
  if (ports == held_.end()) return nullptr;
  const auto holder = ports->second.find(port);
  return holder == ports->second.end() ? nullptr : holder->second;
}

bool PortUse::Used(const HostAddress& address, int port) const {
  return HolderOf(address, port) != nullptr || Reserved(address, port);
}

PortUse::Range PortUse::Dynamic(const std::string& host_network) const {
  const int first = node_.min_dynamic_port, last = node_.max_dynamic_port;
  const std::vector<const HostAddress*> addresses = Addresses(host_network);
  if (last < first || addresses.empty()) return {};
  const size_t size = last - first + 1;
  // Taken on every address so far: by the node's own reservations, and by anybody.
  std::vector<bool> reserved(size, true), taken(size, true);
  for (const HostAddress* address : addresses) {
    std::vector<bool> here(size);
    const auto mark = [&](int from, int to) {
      for (int port = std::max(from, first); port <= std::min(to, last); ++port) {
        here[port - first] = true;
      }
    };
    for (const auto& [from, to] : reserved_) mark(from, to);
    for (const auto& [from, to] : ParsePortRanges(address->reserved_ports)) mark(from, to);
    for (size_t i = 0; i < size; ++i) reserved[i] = reserved[i] && here[i];
    if (const auto ports = held_.find(address->address); ports != held_.end()) {
      for (const auto& [port, holder] : ports->second) mark(port, port);
    }
    for (size_t i = 0; i < size; ++i) taken[i] = taken[i] && here[i];
  }
  Range range{.total = static_cast<int64_t>(size)};
  range.reserved = std::count(reserved.begin(), reserved.end(), true);
  range.allocated = std::count(taken.begin(), taken.end(), true) - range.reserved;
  return range;
}

}  // namespace jenkins_agent::nomad
