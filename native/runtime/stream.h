// The in-order stream of a device: one thread that runs jobs in the order they came. A job that fails stops the ones
// behind it until somebody waits: the error is kept and handed to that wait.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "backend.h"

namespace westwind {

// What a job is, for error messages: the op and up to four sizes.
struct JobLabel {
  const char* op;
  struct Size {
    const char* name;
    int64_t value;
  } sizes[4] = {};
  std::string text() const;
};

class Stream {
 public:
  explicit Stream(Backend& backend);
  ~Stream();  // drops what has not started, waits for what runs
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Runs `work` after everything before it, unless an earlier error is waiting to be told.
  void enqueue(const JobLabel& label, std::function<Status(Backend&)> work);
  // Calls `done` on the stream thread after everything before it, with the kept error or an empty string; the error is
  // forgotten then. `work` runs first if there is no error.
  void enqueue_wait(const JobLabel& label, std::function<Status(Backend&)> work,
                    std::function<void(const std::string& error)> done);
  // Blocks the caller until the stream is idle; errors stay kept.
  void drain();

 private:
  struct Job {
    JobLabel label;
    std::function<Status(Backend&)> work;
    std::function<void(const std::string&)> done;
  };
  void push(Job job);
  void run();

  Backend& backend_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Job> jobs_;
  bool busy_ = false, stop_ = false;
  std::string error_;  // of the stream thread alone
  std::thread thread_;
};

}  // namespace westwind
