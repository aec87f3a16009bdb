#include "driver/sandbox/overlay.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// The overlay looks its layers up by name: these names are the descriptors that were opened.
constexpr char kDescriptors[] = "/proc/self/fd";
constexpr size_t kMaxOptionBytes = 255;  // of one fsconfig string (fs/fsopen.c)

absl::StatusOr<Fd> OpenDirectory(const std::string& path) {
  return OpenFile(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

absl::StatusOr<Fd> NewContext() {
  Fd context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) return ErrnoStatus("open file system overlay");
  return context;
}

absl::Status Set(int context, const char* key, const std::string& value) {
  if (::fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0) return absl::OkStatus();
  return ErrnoStatus(absl::StrCat("set overlay option ", key));
}

std::string Name(const Fd& directory) { return absl::StrCat(kDescriptors, "/", directory.get()); }

// Linux 6.5: one call for each layer. Unimplemented: an older kernel, which takes every option now
// and refuses this one when the file system is made.
absl::StatusOr<Fd> WithLayersOneByOne(const std::vector<Fd>& layers) {
  ASSIGN_OR_RETURN(Fd context, NewContext());
  for (const Fd& layer : layers) RETURN_IF_ERROR(Set(context.get(), "lowerdir+", Name(layer)));
  return context;
}

// All layers in one text, as short as can be: names in the work directory.
absl::StatusOr<Fd> WithLayersTogether(const std::vector<Fd>& layers) {
  const std::string names = absl::StrJoin(
      layers, ":", [](std::string* text, const Fd& layer) { absl::StrAppend(text, layer.get()); });
  if (names.size() > kMaxOptionBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "has ", layers.size(), " layers, more than this kernel takes; Linux 6.5 takes 500"));
  }
  if (::chdir(kDescriptors) != 0) return ErrnoStatus(absl::StrCat("enter ", kDescriptors));
  ASSIGN_OR_RETURN(Fd context, NewContext());
  RETURN_IF_ERROR(Set(context.get(), "lowerdir", names));
  return context;
}

absl::Status Finish(int context, const Fd& upper, const Fd& work) {
  if (upper) {
    RETURN_IF_ERROR(Set(context, "upperdir", Name(upper)));
    RETURN_IF_ERROR(Set(context, "workdir", Name(work)));
    if (::fsconfig(context, FSCONFIG_SET_FLAG, "volatile", nullptr, 0) != 0) {
      return ErrnoStatus("set overlay option volatile");
    }
  }
  if (::fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return ErrnoStatus("create file system overlay");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Fd> NewOverlay(const std::vector<std::string>& layers,
                              const std::string& writable_dir, uint64_t attributes) {
  std::vector<Fd> opened;
  for (const std::string& layer : layers) {
    ASSIGN_OR_RETURN(opened.emplace_back(), OpenDirectory(layer));
  }
  Fd upper, work;
  if (!writable_dir.empty()) {
    ASSIGN_OR_RETURN(upper, OpenDirectory(absl::StrCat(writable_dir, "/", kUpperDir)));
    ASSIGN_OR_RETURN(work, OpenDirectory(absl::StrCat(writable_dir, "/", kWorkDir)));
  }
  absl::StatusOr<Fd> context = WithLayersOneByOne(opened);
  absl::Status made = context.ok() ? Finish(context->get(), upper, work) : context.status();
  if (absl::IsInvalidArgument(made)) {
    ASSIGN_OR_RETURN(context, WithLayersTogether(opened));
    made = Finish(context->get(), upper, work);
  }
  RETURN_IF_ERROR(made);
  Fd mount(::fsmount(context->get(), FSMOUNT_CLOEXEC,
                     static_cast<unsigned>(attributes | (upper ? 0 : MOUNT_ATTR_RDONLY))));
  if (!mount) return ErrnoStatus("make mount of overlay");
  return mount;
}

}  // namespace jenkins_agent
