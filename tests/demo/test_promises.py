"""Every sentence of the page's documentation on what visitors can and cannot do has tests."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROMISES = {
    "Start runs, measurements and searches.": [
        "test_jobs_run_one_after_another_in_their_order",
        "test_a_search_ends_in_a_plan_that_is_used_at_once",
        "test_errors_are_measured_on_every_head",
    ],
    "They wait in one queue of 8 places for the device.": ["test_the_queue_has_eight_places"],
    "One address has at most 4 places, and one page has at most one of each kind.": [
        "test_an_address_has_half_of_the_places",
        "test_one_run_per_user_and_a_short_queue",
    ],
    "Closing the page stops its runs.": ["test_a_page_that_is_closed_stops_its_run"],
    "Ask for a prompt of 1000 characters, 2 to 100 steps, 257 frames, sides of 32 to 2048 pixels, "
    "and 129 x 720 x 1280 pixels in all.": ["test_bounds", "test_videos_are_not_too_big"],
    "A search ends after at most 30 minutes.": [
        "test_time_limits_are_bounded",
        "test_time_is_limited",
    ],
    "Upload a plan: JSON of at most 1 MiB.": [
        "test_uploads_are_plans_or_said_to_be_none",
        "test_a_large_file_is_not_sent",
    ],
    "The browser sends its text, and the server writes no file.": [
        "test_an_uploaded_plan_leaves_nothing_on_the_disk",
        "test_equal_uploads_of_two_visitors_do_not_meet",
    ],
    "The page says what is wrong with a plan.": ["test_plans_are_uploaded_good_and_bad"],
    "Look at a plan for another model, but not run it.": [
        "test_uploads_are_plans_or_said_to_be_none",
        "test_a_plan_for_another_model_fails_and_says_so",
    ],
    "Have a plan drawn, on a grid of at most 131,072 tokens.": [
        "test_no_view_is_drawn_on_a_larger_grid",
    ],
    "If the plan names a larger grid, the page says so and draws on a small one.": [
        "test_a_grid_too_large_is_not_drawn_and_the_page_says_so",
    ],
    "A map by density is drawn if patterns times tokens are at most 2,097,152.": [
        "test_many_patterns_are_not_lowered_for_a_map",
    ],
    "Two views of plans are drawn at a time.": ["test_every_event_waits_in_a_queue"],
    "See and measure only what the plan's schedule uses.": [
        "test_only_assignments_in_use_are_offered",
        "test_only_patterns_in_use_are_measured",
        "test_a_summary_lowers_what_the_schedule_uses",
    ],
    "At most 32 patterns are measured, and at most 64 phases are drawn.": [
        "test_many_patterns_are_not_measured",
        "test_long_schedules_are_not_drawn",
    ],
    "Keep 16 pages open from one address; 64 pages may be open in all.": [
        "test_pages_are_counted_by_address_and_in_all",
        "test_a_page_too_many_is_refused",
    ],
    "Have 8 events of a page, and 12 of an address, wait or run at the same time.": [
        "test_a_visitor_has_few_events_at_a_time",
    ],
    "A request has at most 4 MiB.": ["test_messages_are_limited_in_size"],
    "Read the files of a run by their address, which cannot be guessed.": [
        "test_only_files_of_the_store_are_served",
        "test_old_runs_go_first_and_names_cannot_be_guessed",
    ],
    "The files of the last 32 runs are kept until the server ends.": [
        "test_old_runs_go_first_and_names_cannot_be_guessed",
    ],
    "Make the server fetch anything.": [
        "test_no_event_makes_the_server_fetch_an_address",
        "test_the_server_fetches_nothing_for_anybody",
    ],
    "Read another file of this machine.": ["test_only_files_of_the_store_are_served"],
    "Delete or replace a file.": ["test_an_event_cannot_delete_a_served_file"],
    "Put a file on the disk: gradio's uploads are closed.": ["test_files_are_not_taken"],
    "Start anything without an open page that listens to the results.": [
        "test_clients_without_a_page_start_nothing",
        "test_pages_that_never_listen_hold_no_place",
    ],
    "Reach gradio's API, its monitoring, or any address that the page does not need.": [
        "test_only_what_the_page_needs_is_there",
    ],
    "Reach the page by a host name that is not the server's, so that another site cannot use its "
    "own name for it.": ["test_other_names_of_this_machine_are_refused"],
    "Numeric addresses, localhost, this machine's name and the names of `--name` are allowed.": [
        "test_addresses_and_localhost_are_allowed",
        "test_names_of_the_machine_are_allowed",
    ],
    "Show the page in a frame of another site.": ["test_no_site_may_frame_the_page"],
    "Put HTML or scripts into the page by a plan, a prompt or a file name.": [
        "test_hostile_names_stay_text",
        "test_the_name_of_an_upload_stays_text",
    ],
    "Without `--share` nothing is sent or fetched: fonts, scripts and styles come from this "
    "server, and the browser is told to load nothing from elsewhere.": [
        "test_the_bundled_model_comes_with_an_example_and_makes_a_run",
        "test_the_page_opens_while_the_model_loads",
    ],
    "When the server ends, by Ctrl-C, SIGTERM, a closed terminal or an error, its folder of files "
    "is deleted.": [
        "test_a_signal_ends_the_command",
        "test_the_files_go_when_the_block_ends",
    ],
}
"""Tests by sentence."""


def sentences():
    """The sentences of the lists in the section."""
    text = (ROOT / "docs" / "demo.md").read_text()
    section = text.split("## What visitors can and cannot make the server do")[1].split("\n## ")[0]
    items = re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)
    return [
        sentence for item in items for sentence in re.split(r"(?<=\.) ", re.sub(r"\n *", " ", item))
    ]


def names_of_tests():
    """The names of all tests of the page."""
    trees = (ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_*.py"))
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_sentence_has_tests():
    assert sorted(sentences()) == sorted(PROMISES)
    there = names_of_tests()
    missing = {name for names in PROMISES.values() for name in names if name not in there}
    assert missing == set()
