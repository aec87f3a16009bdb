// Which host ports of a node are taken, by Nomad's rules (nomad/structs/network.go). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// "22,80,8000-9000"; what cannot be read is left out, as a client refuses to start with it.
std::vector<std::pair<int, int>> ParsePortRanges(const std::string& text);

class PortUse {
 public:
  // `allocations`: those that hold something on this node. The node outlives the object.
  PortUse(const Node& node, const std::vector<const Allocation*>& allocations);

  // The addresses of a host network; "" is "default".
  std::vector<const HostAddress*> Addresses(const std::string& host_network) const;
  bool Used(const HostAddress& address, int port) const;
  bool Reserved(const HostAddress& address, int port) const;
  // The allocation that has the port; null: nobody, or the node's own reservation.
  const Allocation* HolderOf(const HostAddress& address, int port) const;
  // The dynamic range of a host network. A port is free when one of the addresses has it free.
  struct Range {
    int64_t total = 0, reserved = 0, allocated = 0;
  };
  Range Dynamic(const std::string& host_network) const;

 private:
  const Node& node_;
  std::vector<std::pair<int, int>> reserved_;  // on every address
  std::map<std::string, std::map<int, const Allocation*>> held_;
};

}  // namespace jenkins_agent::nomad
